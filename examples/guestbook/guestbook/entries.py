"""What an entry may be: shared by the form and the API."""

NAME_LENGTH = 40
MESSAGE_LENGTH = 2000
MOODS = {"": "no mood", "happy": "happy", "curious": "curious", "grateful": "grateful"}


def clean(name, message, mood):
    """The entry as it will be kept, and a list of what is wrong with it."""
    values = []
    errors = []
    for what, value, limit in (("name", name, NAME_LENGTH), ("message", message, MESSAGE_LENGTH)):
        value = value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""
        if not value:
            errors.append("The %s is missing." % what)
        elif len(value) > limit:
            errors.append("The %s is longer than %d characters." % (what, limit))
        values.append(value)
    if mood not in MOODS:
        errors.append("There is no such mood.")
        mood = ""
    return values[0], values[1], mood, errors
