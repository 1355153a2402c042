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


USER = {"id": "u-1", "name": "tester", "domain": {"id": "default", "name": "Default"}}
PASSWORD = "testing"
PROJECT = {"id": "p-1", "name": "contract", "domain": {"id": "d-2", "name": "Projects"}}
APPLICATION = {"id": "a-1", "name": "registry"}
APPLICATION_SECRET = "applying"
TRUST = "t-1"


class Refused(Exception):
    """Who asks is not who he says."""


class Identity:
    """
    A token service: versions 2.0 and 3, as far as a log-in goes.

    The tokens are good for Swift's own TempAuth, which looks them up in the cache. Asking for
    ``/identity/end`` ends all of them, earlier than they said.
    """

    def __init__(self, cache):
        self._cache = cache
        self._issued = []

    def __call__(self, environ, start_response):
        """WSGI."""
        scheme, *path = environ["PATH_INFO"].removeprefix("/identity/").split("/")
        text = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        ways = {
            ("v2.0", "tokens"): (check_v2, answer_v2, "200 OK"),
            ("v3", "auth", "tokens"): (check_v3, answer_v3, "201 Created"),
        }
        status, headers, document = "404 Not Found", [], {}
        if scheme == "end":
            for token in self._issued:
                self._keep(token, time.time() - 1)
            status = "200 OK"
        elif environ["REQUEST_METHOD"] == "POST" and tuple(path) in ways:
            check, answer, status = ways[tuple(path)]
            try:
                is_scoped = check(json.loads(text)["auth"])
            except (Refused, KeyError, TypeError, ValueError):
                status, document = "401 Unauthorized", {"error": {"code": 401, "title": "Unauthorized"}}
            else:
                accounts = accounts_at(f"{scheme}://{environ['HTTP_HOST']}") if is_scoped else []
                headers, document = answer(*self._issue(), accounts)
        start_response(status, headers)
        return [json.dumps(document).encode()]

    def _issue(self):
        """A token, and when it was issued and will end."""
        token, now = f"AUTH_tk{uuid.uuid4().hex}", time.time()
        self._issued.append(token)
        self._keep(token, now + 3600)
        return token, *(time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(one)) for one in (now, now + 3600))

    def _keep(self, token, expires):
        self._cache.set(f"AUTH_/token/{token}", (expires, "contract,contract:tester,AUTH_contract"), time=3600)


def accounts_at(origin):
    """Region, interface and address; only the account of two of them is the one that the tokens are good for."""
    right = {("north", "public"), ("south", "internal")}
    return [
        (region, interface, f"{origin}/v1/AUTH_{'contract' if (region, interface) in right else 'other'}")
        for region in ("north", "south")
        for interface in ("admin", "internal", "public")
    ]


def check_v2(auth):
    """Whether the token is for the project. Raises Refused."""
    given = auth["passwordCredentials"]
    if (given["username"], given["password"]) != (USER["name"], PASSWORD):
        raise Refused
    return auth.get("tenantId") == PROJECT["id"] or auth.get("tenantName") == PROJECT["name"]


def answer_v2(token, issued, expires, accounts):
    """Headers and document."""
    regions = {}
    for region, interface, url in accounts:
        regions.setdefault(region, {"region": region})[f"{interface}URL"] = url
    services = [{"type": "identity", "endpoints": []}]
    if accounts:
        services.append({"type": "object-store", "endpoints": list(regions.values())})
    token = {"id": token, "issued_at": issued, "expires": expires}
    return [], {"access": {"token": token, "serviceCatalog": services}}


def check_v3(auth):
    """Whether the token is for the project. Raises Refused."""
    [method] = auth["identity"]["methods"]
    given = auth["identity"][method]
    if method == "application_credential":
        if given.get("id") != APPLICATION["id"]:
            require(given["user"], USER)
        require(given, APPLICATION, has_domain=False)
        if given["secret"] != APPLICATION_SECRET:
            raise Refused
        return True
    require(given["user"], USER)
    if given["user"]["password"] != PASSWORD:
        raise Refused
    scope = auth.get("scope", {})
    if "OS-TRUST:trust" in scope:
        if scope["OS-TRUST:trust"]["id"] != TRUST:
            raise Refused
    elif scope:
        require(scope["project"], PROJECT)
    return bool(scope)


def answer_v3(token, issued, expires, accounts):
    """Headers and document."""
    endpoints = [
        {"region": region, "region_id": region, "interface": interface, "url": url}
        for region, interface, url in accounts
    ]
    services = [{"type": "identity", "endpoints": []}]
    if accounts:
        services.append({"type": "object-store", "endpoints": endpoints})
    document = {"token": {"issued_at": issued, "expires_at": expires, "catalog": services}}
    return [("X-Subject-Token", token)], document


def require(given, real, *, has_domain=True):
    """Raise Refused unless this is the real one: by its id, or by its name in its domain."""
    if "id" in given:
        is_real = given["id"] == real["id"]
    else:
        is_real = given["name"] == real["name"]
        if has_domain:
            [(key, value)] = given["domain"].items()
            is_real = is_real and real["domain"][key] == value
    if not is_real:
        raise Refused


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
