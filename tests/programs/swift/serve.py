"""
A whole Swift in one process; the Python of Swift's own environment runs it.

    python serve.py DIRECTORY PORT

The real account, container, object and proxy servers keep one replica of everything below DIRECTORY and listen on
loopback, the proxy at PORT. What a cluster has besides is made here: a cache (elsewhere memcached), and a token
service (elsewhere Keystone) below ``/identity/<scheme of the addresses in its catalogue>``. It says "ready" when
all are.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path

import eventlet
import eventlet.wsgi
from swift.common import utils
from swift.common import wsgi as swift_wsgi
from swift.common.http_protocol import SwiftHttpProtocol
from swift.common.ring import RingBuilder
from swift.common.storage_policy import reload_storage_policies

# What is known of accounts and containers is asked anew each time: usually it is kept for a minute.
PROXY = """
[DEFAULT]
swift_dir = {configuration}
log_level = WARNING

[pipeline:main]
pipeline = catch_errors listing_formats tempurl tempauth copy container_quotas slo dlo proxy-server

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:listing_formats]
use = egg:swift#listing_formats

[filter:tempurl]
use = egg:swift#tempurl
allowed_digests = sha256 sha512

[filter:tempauth]
use = egg:swift#tempauth
user_contract_tester = testing .admin
user_contract_guest = visiting
user_other_tester = testing .admin

[filter:copy]
use = egg:swift#copy

[filter:container_quotas]
use = egg:swift#container_quotas

[filter:slo]
use = egg:swift#slo

[filter:dlo]
use = egg:swift#dlo

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
recheck_account_existence = 0
recheck_container_existence = 0
node_timeout = 60
"""
# A listing must know at once what is stored: nobody would bring what a slow machine left for later.
BACKEND = """
[DEFAULT]
swift_dir = {configuration}
devices = {devices}
mount_check = false
disable_fallocate = true
container_update_timeout = 60
log_level = WARNING

[app:main]
use = egg:swift#{kind}
"""


class Cache:
    """What the servers ask of memcached, in the memory of this process. It keeps nothing for no time."""

    def __init__(self):
        self._kept = {}

    def get(self, key, raise_on_error=False):
        value, until = self._kept.get(key, (None, 0))
        return json.loads(value) if until > time.time() else None

    def set(self, key, value, serialize=True, time=0, min_compress_len=0, raise_on_error=False):
        self._kept[key] = json.dumps(value), _now() + time

    def delete(self, key, server_key=None):
        self._kept.pop(key, None)


def _now():
    return time.time()


USER = {"id": "u-1", "name": "tester", "password": "testing", "domain": {"id": "default", "name": "Default"}}
PROJECTS = {"p-1": ("contract", {"id": "d-2", "name": "Projects"}), "p-2": ("brief", {"id": "default"})}
APPLICATION = {"id": "a-1", "name": "registry", "secret": "applying"}
TRUST = "t-1"


class Identity:
    """
    A token service: versions 2.0 and 3, as far as a log-in goes.

    The tokens are good for Swift's own TempAuth, which looks them up in the cache. Whoever asks for the project
    "brief" is told that the token is good for an hour, and it is for a second.
    """

    def __init__(self, cache):
        self._cache = cache

    def __call__(self, environ, start_response):
        """WSGI."""
        scheme, version, *path = environ["PATH_INFO"].removeprefix("/identity/").split("/")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        ways = {("v2.0", "tokens"): self._log_in_v2, ("v3", "auth", "tokens"): self._log_in_v3}
        way = ways.get((version, *path))
        if way is None or environ["REQUEST_METHOD"] != "POST":
            start_response("404 Not Found", [])
            return [b"{}"]
        try:
            auth = json.loads(environ["wsgi.input"].read(length))["auth"]
            project = way(auth, None)
        except (KeyError, TypeError, ValueError):
            start_response("401 Unauthorized", [])
            return [b'{"error": {"code": 401, "title": "Unauthorized"}}']
        headers, document = way(auth, self._issue(project, f"{scheme}://{environ['HTTP_HOST']}"))
        start_response("201 Created" if version == "v3" else "200 OK", [*headers, ("Vary", "X-Auth-Token")])
        return [json.dumps(document).encode()]

    def _issue(self, project, origin):
        """A token for the project, when it was and will be good, and where the accounts are."""
        token, now = f"AUTH_tk{uuid.uuid4().hex}", time.time()
        expires = now + (1 if project == "p-2" else 3600)
        self._cache.set(f"AUTH_/token/{token}", (expires, "contract,contract:tester,AUTH_contract"), time=3600)
        moments = [time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(one)) for one in (now, now + 3600)]
        # Only the account of the region and the interface that a client is to choose is the right one.
        accounts = [
            (region, interface, f"{origin}/v1/AUTH_{'contract' if right else 'other'}")
            for region in ("north", "south")
            for interface in ("admin", "internal", "public")
            for right in [(region, interface) in {("north", "public"), ("south", "internal")}]
        ]
        return token, *moments, accounts if project else []

    def _log_in_v2(self, auth, issued):
        if issued is None:
            given = auth["passwordCredentials"]
            if (given["username"], given["password"]) != (USER["name"], USER["password"]):
                raise ValueError
            return next(
                (key for key, (name, _) in PROJECTS.items()
                 if auth.get("tenantId") == key or auth.get("tenantName") == name),
                None,
            )  # fmt: skip
        token, issued_at, expires, accounts = issued
        regions = {}
        for region, interface, url in accounts:
            regions.setdefault(region, {"region": region})[f"{interface}URL"] = url
        catalogue = [{"type": "object-store", "name": "swift", "endpoints": list(regions.values())}]
        identity = {"type": "identity", "name": "keystone", "endpoints": []}
        return [], {
            "access": {
                "token": {"id": token, "issued_at": issued_at, "expires": expires},
                "serviceCatalog": [identity, *(catalogue if accounts else [])],
            }
        }

    def _log_in_v3(self, auth, issued):
        if issued is None:
            [method] = auth["identity"]["methods"]
            given = auth["identity"][method]
            if method == "application_credential":
                self._check_application(given)
                return "p-1"
            user = given["user"]
            self._check_user(user)
            if user["password"] != USER["password"]:
                raise ValueError
            return self._project_of(auth.get("scope", {}))
        token, issued_at, expires, accounts = issued
        endpoints = [
            {"region": region, "region_id": region, "interface": interface, "url": url}
            for region, interface, url in accounts
        ]
        catalogue = [
            {"type": "identity", "name": "keystone", "endpoints": []},
            {"type": "object-store", "name": "swift", "endpoints": endpoints},
        ]
        return [("X-Subject-Token", token)], {
            "token": {"issued_at": issued_at, "expires_at": expires, "catalog": catalogue if accounts else []}
        }

    def _check_user(self, given):
        domain = given.get("domain", {})
        by_name = given.get("name") == USER["name"] and (
            domain.get("id") == USER["domain"]["id"] or domain.get("name") == USER["domain"]["name"]
        )
        if given.get("id") != USER["id"] and not by_name:
            raise ValueError

    def _check_application(self, given):
        if given["secret"] != APPLICATION["secret"]:
            raise ValueError
        if given.get("id") != APPLICATION["id"]:
            self._check_user(given["user"])
            if given["name"] != APPLICATION["name"]:
                raise ValueError

    def _project_of(self, scope):
        if "OS-TRUST:trust" in scope:
            if scope["OS-TRUST:trust"]["id"] != TRUST:
                raise ValueError
            return "p-1"
        if not scope:
            return None
        project = scope["project"]
        for key, (name, domain) in PROJECTS.items():
            if project.get("id") == key:
                return key
            asked = project.get("domain", {})
            if project.get("name") == name and any(asked.get(one) == domain[one] for one in asked):
                return key
        raise ValueError


def main(directory, port):
    configuration, devices = directory / "configuration", directory / "devices"
    configuration.mkdir(parents=True, exist_ok=True)
    (devices / "disk").mkdir(parents=True, exist_ok=True)
    utils.SWIFT_CONF_FILE = str(configuration / "swift.conf")
    Path(utils.SWIFT_CONF_FILE).write_text("[swift-hash]\nswift_hash_path_suffix = contract\n")
    utils.validate_hash_conf()
    reload_storage_policies()
    # The log goes to the standard error, too; nobody listens where the other copy goes.
    utils.get_swift_logger.console_handler4logger = {}

    from swift.obj import diskfile

    # What is written outlives the process, and that is enough here.
    diskfile.fsync = diskfile.fsync_dir = lambda _: None

    listening = {}
    for kind in ("account", "container", "object"):
        listening[kind] = eventlet.listen(("127.0.0.1", 0))
        ring = RingBuilder(1, 1, 0)
        at = {"ip": "127.0.0.1", "port": listening[kind].getsockname()[1], "device": "disk"}
        ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, **at})
        ring.rebalance()
        ring.get_ring().save(str(configuration / f"{kind}.ring.gz"))
        text = BACKEND.format(configuration=configuration, devices=devices, kind=kind)
        (configuration / f"{kind}.conf").write_text(text)
    (configuration / "proxy.conf").write_text(PROXY.format(configuration=configuration))
    listening["proxy"] = eventlet.listen(("127.0.0.1", port))

    cache = Cache()
    identity = Identity(cache)
    for kind, socket in listening.items():
        application = swift_wsgi.loadapp(str(configuration / f"{kind}.conf"), global_conf={"log_name": kind})

        def answer(environ, start_response, application=application):
            environ["swift.cache"] = cache
            chosen = identity if environ["PATH_INFO"].startswith("/identity/") else application
            return chosen(environ, start_response)

        serving = eventlet.spawn(
            eventlet.wsgi.server,
            socket,
            answer,
            utils.NullLogger(),
            protocol=SwiftHttpProtocol,
            capitalize_response_headers=False,
        )
    print("ready", flush=True)
    serving.wait()


if __name__ == "__main__":
    utils.monkey_patch()
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]))
