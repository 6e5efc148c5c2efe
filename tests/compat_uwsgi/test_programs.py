"""uWSGI's daemons, crons and alarms: what they become, and that they run."""

import importlib
import os
import signal
import stat
import subprocess
import time
import urllib.request

import pytest

from tests.compat_uwsgi.conftest import result
from tests.lib.server import free_port
from tests.lib.server import test_command as stoker_command

program_rules = importlib.import_module("compat_sources.program_rules")
translate = importlib.import_module("compat_sources.translate")


def until(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def own(conf, text):
    """The settings of a file that are about programs, and what is said."""
    translation = translate.translate(conf.read(text + "\n"), {})
    kinds = ("attach-daemon", "program", "cron", "unique-cron", "cron-timeout", "touch-exec") + tuple(
        name for name, *_ in translation.settings if "alarm" in name
    )
    return {name: value for name, value, *_ in translation.settings if name in kinds}, "\n".join(translation.notices)


def test_daemons(conf):
    made, said = own(
        conf,
        "attach-daemon = nice -n 5 celery -A d\nsmart-attach-daemon = /run/a.pid,5 redis-server\n"
        "smart-attach-daemon2 = /run/b.pid memcached\nattach-control-daemon = heart\n"
        'attach-daemon2 = cmd="echo ""a"",b",stopsignal=2,reloadsignal=1,uid=33,gid=33,chdir=/tmp,max_throttle=9,touch=/a;/b,ns_pid=1\n'
        "attach-daemon2 = exec=redis,pidfile=/run/c.pid,daemonize=1,notifypid=1,freq=3",
    )
    assert made["attach-daemon"] == ["nice -n 5 celery -A d"]
    assert made["program"] == [
        'command="redis-server" pidfile="/run/a.pid" pidfile-wait="5" background="true"',
        'command="memcached" pidfile="/run/b.pid"',
        'command="heart" vital="true"',
        'command="echo a,b" user="33" group="33" directory="/tmp" stop-signal="2" reload="1" backoff="9" touch="/a" touch="/b"',
        'command="redis" pidfile="/run/c.pid" pidfile-wait="3" notify="true"',
    ]
    assert "ns_pid is left out" in said
    made, _ = own(conf, "daemons-honour-stdin = true\nattach-daemon = cat")
    assert made["program"] == ['command="cat" stdin="true"']


def test_crons(conf):
    made, said = own(
        conf,
        "cron = 0  2 -1 -1 -1   ./manage.py clear\ncron = 120 -1 -1 -1 -1 never\nunique-cron = -15 -1 -1 -1 -1 ls\n"
        'cron2 = minute=59,hour=3,unique=1,harakiri=20 say "x"\ncron2 = harakiri=0,week=7 a b\ncron2 = legion=x nothing\n'
        "cron2 = plain command\ncron-harakiri = 30\ntouch-exec = a b c\nhook-touch = d exec:e f",
    )
    assert made["cron"] == [
        "0 2 -1 -1 -1 ./manage.py clear",
        'minute="59" hour="3" day="-1" month="-1" week="-1" unique="true" timeout="20" command="say \\"x\\""',
        'minute="-1" hour="-1" day="-1" month="-1" week="7" unique="false" timeout="none" command="a b"',
        'minute="-1" hour="-1" day="-1" month="-1" week="-1" unique="false" command="plain command"',
    ]
    assert made["unique-cron"] == ["-15 -1 -1 -1 -1 ls"] and made["cron-timeout"] == "30"
    assert made["touch-exec"] == ["a b c", "d e f"]
    assert "there is no minute 120: it never runs" in said and "there are no legions" in said


def test_alarms(conf, monkeypatch):
    monkeypatch.setattr(program_rules.shutil, "which", lambda name: "/bin/" + name)
    made, said = own(
        conf,
        "alarm = mail cmd:mail -s x y\nalarm = s sentry:dsn=x\nalarm = l log:\nalarm = c curl:http://h/x;method=POST;timeout=3\n"
        "alarm = m mule:1\nalarm-log = mail,s ^DANGER .*$\nlog-alarm = s x\nnot-log-alarm = l y\nsegfault-alarm = s\n"
        "alarm-backlog = mail\nalarm-freq = 10",
    )
    assert made["alarm"] == [
        "mail cmd:mail -s x y", "l log:", "c cmd:curl -sS -o /dev/null --max-time 3 -X POST -T - http://h/x",
    ]  # fmt: skip
    assert made["alarm-log"] == ["mail ^DANGER .*$"] and made["not-alarm-log"] == ["l y"]
    assert "alarm-segfault" not in made and made["alarm-backlog"] == ["mail"] and made["alarm-freq"] == "10"
    assert "the plugin 'sentry' is not there" in said and "a mule are not there yet" in said


@pytest.mark.parametrize(
    "text", ["cron = * * * * * ls", "cron = 1 2 3 ls", "attach-daemon2 = freq=3", "smart-attach-daemon = /run/x", "alarm = x y", "hook-touch = x log:y"]
)
def test_mistakes(conf, text):
    with pytest.raises(result.ConfigError) as caught:
        own(conf, text)
    assert "app.ini:2: " in str(caught.value)


def test_they_run(place, serve):
    """As in uWSGI's documentation: a daemon, one with a pidfile, a job of each minute, an alarm."""
    (place / "u.ini").write_text(
        "[uwsgi]\nmodule = app\nmaster = true\nprocesses = 1\n"
        "attach-daemon = echo $$ > first; exec sleep 1000\n"
        "smart-attach-daemon2 = %(place)s/smart.pid exec sleep 1000\n"
        "unique-cron = -1 -1 -1 -1 -1 echo job\n"
        "alarm = file cmd:cat > told\nlog-alarm = file cron echo\n".replace("%(place)s", str(place))
    )
    server = serve(None, "--ini", "u.ini", cwd=place)
    server.wait_log("ready after")
    server.wait_log(r"info: echo: job\n")
    until(lambda: (place / "told").exists() and (place / "told").read_text(), "no alarm")
    until(lambda: (place / "first").exists() and (place / "first").read_text(), "no daemon")
    until(lambda: (place / "smart.pid").exists() and (place / "smart.pid").read_text(), "no pidfile")
    first, smart = (int((place / name).read_text()) for name in ("first", "smart.pid"))
    try:
        server.stop()
        assert not os.path.exists("/proc/%d" % first) and os.path.exists("/proc/%d" % smart)
        assert stat.S_ISREG(os.stat(place / "smart.pid").st_mode)
    finally:
        os.kill(smart, signal.SIGKILL)


def test_the_master_of_a_daemon(place):
    """uwsgi.reload() and its like signal uwsgi.masterpid(): not the process that has read the configuration, and is gone."""
    (place / "app.py").write_text(
        "import os, uwsgi\ndef application(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [b'%d %d' % (uwsgi.masterpid(), os.getppid())]\n"
    )
    port = free_port()
    (place / "u.ini").write_text(
        "[uwsgi]\nmodule = app\nhttp-socket = 127.0.0.1:%d\nprocesses = 1\npidfile = pid\ndaemonize = log\n" % port
    )
    subprocess.run([*stoker_command(), "--ini", "u.ini"], cwd=place, check=True, timeout=60)
    master = int((place / "pid").read_text())
    try:
        with urllib.request.urlopen("http://127.0.0.1:%d/" % port, timeout=30) as answer:
            assert answer.read() == b"%d %d" % (master, master)
    finally:
        os.kill(master, signal.SIGTERM)
        until(lambda: not os.path.exists("/proc/%d" % master), "it does not end")
