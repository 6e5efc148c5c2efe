"""uWSGI's configuration: its language (language.py), its options (names.py, options.tsv), and what they are here
(translate.py). All of it runs once, in the master, before anything is forked; serving an application that is
given to stoker in stoker's own words imports none of it.
"""
