"""nginx as a peer (a constant, files, TLS) and as the front end before a measured back end."""

import getpass
import os
import shutil
import subprocess

HEAD = """
{user}
worker_processes {workers};
daemon off;
pid {pid};
error_log {errors};
events {{ worker_connections 20000; }}
http {{
    {log}
    keepalive_requests 1000000000;
    client_body_temp_path {scratch};
    proxy_temp_path {scratch};
    fastcgi_temp_path {scratch};
    uwsgi_temp_path {scratch};
    scgi_temp_path {scratch};
    default_type text/plain;
{body}
}}
"""
PASS = {
    "http": """
    upstream back {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://back;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
""",
    "uwsgi": """
    upstream back {{ server {upstream}; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ include /etc/nginx/uwsgi_params; uwsgi_pass back; }}
    }}
""",
}


def program():
    """nginx's path, or None."""
    found = shutil.which("nginx")
    return found or ("/usr/sbin/nginx" if os.path.exists("/usr/sbin/nginx") else None)


def _command(at, name, workers, log, body):
    """Writes a configuration and returns the command line that runs it."""
    text = HEAD.format(
        user=f"user {getpass.getuser()};" if os.geteuid() == 0 else "", workers=workers,
        pid=at.file(name + ".pid"), errors=at.file(name + "-error.log"), log=log,
        scratch=at.scratch, body=body)
    conf = at.file(name + ".conf")
    with open(conf, "w", encoding="ascii") as stream:
        stream.write(text)
    return [program(), "-p", at.scratch, "-c", conf, "-e", at.file(name + "-error.log")]


def peer(spec, at):
    """A server of a constant, or of the files of a scenario, with or without TLS."""
    log = f"access_log {at.file('access.log')} combined buffer=64k flush=1s;" if spec.log \
        else "access_log off;"
    tls = ""
    if at.tls:
        tls = f"ssl_certificate {at.tls[0]}; ssl_certificate_key {at.tls[1]}; " \
              "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:10m;"
    what = 'location / { return 200 "Hello, World!\\n"; }'
    if at.static:
        what = "sendfile on; tcp_nopush on; open_file_cache max=1000 inactive=60s; " \
               "open_file_cache_valid 30s; " \
               f"location /f/ {{ alias {at.static}/; }}"
    body = f"""
    server {{
        listen 127.0.0.1:{at.port} backlog=4096{' ssl' if at.tls else ''};
        {tls}
        {what}
    }}
"""
    return _command(at, "nginx", spec.workers, log, body)


def front(at, port):
    """The front end before at.listen; it logs nothing, the back end does."""
    upstream = f"unix:{at.listen}" if at.listen.startswith("/") else at.listen
    body = PASS[at.road].format(upstream=upstream, port=port)
    return _command(at, "front", 1, "access_log off;", body)


def certificate(scratch):
    """(certificate, key) of a P-256 key, made once a run."""
    cert, key = os.path.join(scratch, "cert.pem"), os.path.join(scratch, "key.pem")
    if not os.path.exists(cert):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-days", "30", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    return cert, key
