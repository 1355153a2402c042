"""No secret that is used in any way, right or wrong, is found afterwards where it has no place to be."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import asyncpg
import pytest
from sqlalchemy import text
from tests.support.client import Answer, Client
from tests.support.commands import Commands, RemoteCommands
from tests.support.images import digest_of, make_image
from tests.support.receiver import Receiver, Reply, receiving
from tests.support.s3 import SECRET_KEY, run_s3_server
from tests.support.server import Server
from tests.support.syslog import SyslogServer
from tests.support.wire import wait_until

from dtr.app import Application
from dtr.db import Statement

DATABASE_PASSWORD = "pl4nted-d4tabase-password"
USER_PASSWORD = "pl4nted:user/password ü&="
WRONG_PASSWORD = "pl4nted-wr0ng-password"
MISTYPED = "pl4nted-password-as-name"
WRONG_TOKEN = "dtra_pl4nted-acce55-token-that-is-wr0ng"
WRONG_KEY = "pl4nted-s3-key-that-is-wr0ng"
OLD_PASSWORD = "pl4nted-0ld-password"
NEW_PASSWORD = "pl4nted-n3w-password"
IMPORTED_PASSWORD = "pl4nted-1mported-password"
WEBHOOK_SECRET = "pl4nted:web/hook sécret"
CHANGED_WEBHOOK_SECRET = "pl4nted-0ther-webhook-secret"
HOOK = "/hooks/pl4nted-addre55-that-opens-a-door"
REMOTE_PASSWORD = "pl4nted:rem0te/password ü"
WRONG_REMOTE_PASSWORD = "pl4nted-wr0ng-remote-password"
REMOTE_TOKEN = "pl4nted-wr0ng-remote-token"
PRIVATE_KEY = "pl4ntedMC4CAQAwBQYDK2VwBCIEIPr1vateKeyThatNobodyShouldHaveSent"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Exposed:
    """A server that secrets were used on, and all that it gave away."""

    server: Server
    secrets: dict[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    """All but those that are meant to carry a token."""
    request_ids: list[str] = field(default_factory=list)
    """Of requests of ann on acme/app."""
    shown: list[str] = field(default_factory=list)
    """What commands printed."""
    kept: dict[str, str] = field(default_factory=dict)
    """What the database has to keep, and nobody else: hashes and keys that sign."""
    told: list[str] = field(default_factory=list)
    """What a syslog server and a receiver of webhooks were told, and the logs of all jobs."""

    def assert_hidden(self, found: str, where: str, *, may_be_kept: bool = False) -> None:
        assert found, where
        for name, secret in (self.secrets if may_be_kept else self.secrets | self.kept).items():
            for form in forms(secret):
                assert form not in found, f"{name} as {form!r} is in {where}: {around(found, form)}"


def forms(secret: str) -> set[str]:
    """The secret, and what it looks like in headers, addresses and JSON."""
    basic = base64.b64encode(f"ann:{secret}".encode()).decode().rstrip("=")
    return {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], basic}


def around(found: str, form: str) -> str:
    position = found.index(form)
    return found[max(0, position - 300) : position + 300]


def execute(url: str, *commands: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(url)
        for command in commands:
            await connection.execute(command)
        await connection.close()

    asyncio.run(work())


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def exposed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exposed]:
    directory = tmp_path_factory.mktemp("exposed")
    settings: dict[str, Any] = {"log.level": "debug"}
    cluster = None
    if request.param == "postgresql":
        cluster = request.getfixturevalue("postgresql_cluster")
        url = cluster.create()
        user, _, rest = url.partition("@")
        settings["database.url"] = f"{user}:{DATABASE_PASSWORD}@{rest}"
    syslog = SyslogServer("tcp", directory).start()
    settings |= {
        "events.syslog_address": syslog.address,
        "webhooks.allowed_networks": "127.0.0.0/8",
        "mirroring.allowed_networks": "127.0.0.0/8",
    }
    with run_s3_server(directory) as s3, receiving() as receiver:
        server = Server(directory / "dtr", {**settings, **s3.settings}, workers=1)
        server.cli("migrate")
        found = Exposed(server.start(), {"S3 key": SECRET_KEY, "wrong S3 key": WRONG_KEY})
        if cluster is not None:
            found.secrets["database password"] = DATABASE_PASSWORD
        use(found)
        use_api(found)
        use_webhooks(found, receiver)
        use_remotes(found)
        use_commands(found, directory)
        found.secrets["key of the vault"] = (server.directory / "secret.key").read_text().strip()
        found.kept = kept_secrets(server)
        ask_for_everything(found)
        found.told += [f"{one.headers} {one.body.decode()}" for one in receiver.received]
        found.told += [one.decode() for one in list(syslog.received)]
        if cluster is not None:
            break_database(found, cluster)
        break_storage(found, s3)
        for command in (
            ("config", "show"),
            ("doctor",),
            ("account", "list"),
            ("account", "tokens", "ann"),
            ("fsck",),
        ):
            found.shown.append(Commands(server).run(*command).output)
        yield found
        server.close()
    syslog.kill()


def use(exposed: Exposed) -> None:
    server, secrets = exposed.server, exposed.secrets
    server.cli("account", "create", "ann", "--password-stdin", stdin=f"{USER_PASSWORD}\n")
    server.cli("account", "create", "acme", "--organization")
    server.cli("account", "member", "acme", "ann", "--owner")
    server.cli("repository", "create", "acme/app")
    access = server.cli("account", "token", "ann", "--label", "planted").stdout.strip()
    client = Client(server, "ann", USER_PASSWORD)
    scope = "repository:acme/app:pull,push"
    # Log-ins as clients do them.
    answer = client.send(
        "GET",
        f"/auth/token?service=dtr&offline_token=true&client_id=docker&scope={quote(scope)}",
        headers={"Authorization": client.basic()},
    ).expect(200)
    refresh, token = answer.json["refresh_token"], answer.json["token"]
    password = {"grant_type": "password", "username": "ann", "password": USER_PASSWORD, "access_type": "offline"}
    answer = client.send("POST", "/auth/token", urlencode({**password, "service": "dtr"}).encode(), FORM).expect(
        200
    )
    second_refresh = answer.json["refresh_token"]
    renew = {"grant_type": "refresh_token", "refresh_token": refresh, "service": "dtr", "scope": scope}
    client.send("POST", "/auth/token", urlencode(renew).encode(), FORM).expect(200)
    with_token = Client(server, "ann", access)
    with_token.push("acme/app", make_image(size=100_000), "v1")
    secrets |= {
        "password": USER_PASSWORD,
        "wrong password": WRONG_PASSWORD,
        "password as a name": MISTYPED,
        "access token": access,
        "wrong access token": WRONG_TOKEN,
        "refresh token": refresh,
        "second refresh token": second_refresh,
        "token": token,
        "token of a push": with_token.token("repository:acme/app:pull,push,delete"),
    }
    keep(exposed, client.send("GET", "/v2/acme/app/tags/list", headers={"Authorization": f"Bearer {token}"}))
    exposed.request_ids.append(exposed.answers[-1].expect(200).headers["x-request-id"])
    client.token(scope)
    # Log-ins that are wrong.
    for name, secret in (
        ("ann", WRONG_PASSWORD),
        ("ann", WRONG_TOKEN),
        (MISTYPED, "x"),
        ("ann", token),
        ("bob", access),
    ):
        wrong = Client(server, name, secret)
        keep(exposed, wrong.send("GET", "/auth/token?service=dtr", headers={"Authorization": wrong.basic()}))
        form = {"grant_type": "password", "username": name, "password": secret}
        keep(exposed, wrong.send("POST", "/auth/token", urlencode(form).encode(), FORM))
        wrong.close()
    for secret in (*secrets.values(), refresh + "x"):
        forget_failures(server)
        misuse(exposed, client, secret)
    forget_failures(server)
    client.close()


def call(client: Client, method: str, path: str, form: Any = None) -> Answer:
    """Send JSON with the password of the client's user."""
    body = None if form is None else json.dumps(form).encode()
    return client.send(method, path, body, {"Authorization": client.basic(), **({} if body is None else JSON)})


def use_webhooks(exposed: Exposed, receiver: Receiver) -> None:
    """Webhooks with a secret, whose receiver fails and then takes what it is told."""
    server = exposed.server
    ann, webhooks = Client(server, "ann", USER_PASSWORD), "/api/v0/webhooks"
    exposed.secrets |= {"webhook's secret": WEBHOOK_SECRET, "webhook's other secret": CHANGED_WEBHOOK_SECRET}
    to = {"type": "TAG_PUSH", "key": "acme/app", "endpoint": receiver.url(HOOK, "127.0.0.1")}
    to["skipTLSVerification"] = True
    # The secret is not only in its place.
    keep(exposed, call(ann, "POST", webhooks, {**to, "type": WEBHOOK_SECRET, "secret": WEBHOOK_SECRET})).expect(
        400
    )
    keep(exposed, call(ann, "POST", webhooks, {**to, "secret": [WEBHOOK_SECRET]})).expect(400)
    keep(exposed, call(ann, "POST", f"{webhooks}/test", {**to, "secret": WEBHOOK_SECRET}))
    form = {**to, "secret": WEBHOOK_SECRET}
    (made,) = keep(exposed, call(ann, "POST", webhooks, form)).expect(200, 201).json
    assert made["hasSecret"]
    before = len(receiver.received)
    receiver.reply = lambda one: Reply(500 if len(receiver.received) == before + 1 else 200, one.body)
    ann.push("acme/app", make_image(size=1000), "told")
    receiver.wait(before + 2)
    change = {"id": made["id"], "secret": CHANGED_WEBHOOK_SECRET}
    keep(exposed, call(ann, "POST", f"{webhooks}/update", change)).expect(200)
    deliveries = f"{webhooks}/{made['id']}/deliveries"
    wait_until(lambda: [one["status"] for one in call(ann, "GET", deliveries).json] == ["delivered"])
    (delivery,) = keep(exposed, call(ann, "GET", deliveries)).json
    keep(exposed, call(ann, "POST", f"{deliveries}/{delivery['id']}/redeliver")).expect(202)
    receiver.wait(before + 3)
    first, *_, last = receiver.received[before:]
    for received, secret in ((first, WEBHOOK_SECRET), (last, CHANGED_WEBHOOK_SECRET)):
        signature = hmac.new(secret.encode(), received.body, "sha256").hexdigest()
        assert received.headers["x-dtr-signature-256"] == f"sha256={signature}"
    ann.close()


def use_remotes(exposed: Exposed) -> None:
    """Another registry, which is this one: with the right password and with wrong ones, stored and only tried."""
    server = exposed.server
    admin, ann = Client(server), Client(server, "ann", USER_PASSWORD)
    server.cli("account", "create", "rem", "--password-stdin", stdin=f"{REMOTE_PASSWORD}\n")
    server.cli("repository", "create", "rem/there")
    exposed.secrets |= {
        "remote's password": REMOTE_PASSWORD,
        "remote's wrong password": WRONG_REMOTE_PASSWORD,
        "remote's token": REMOTE_TOKEN,
    }
    there = {"remoteHost": f"https://{server.address}", "remoteCA": server.ca.read_text()}
    named = {**there, "remoteRepository": "rem/there", "username": "rem"}
    right, wrong = {**named, "password": REMOTE_PASSWORD}, {**named, "password": WRONG_REMOTE_PASSWORD}
    tried = "/api/v0/remote/registry"
    keep(exposed, call(ann, "POST", tried, right)).expect(201)
    for form in (
        wrong,
        {**named, "authToken": REMOTE_TOKEN},
        {**named, "remoteHost": f"https://u:{REMOTE_PASSWORD}@h"},
    ):
        keep(exposed, call(ann, "POST", tried, form)).expect(400)
    forget_failures(server)
    remotes = "/api/v0/remotes"
    form = {**there, "name": "itself", "namespace": "acme", "username": "rem", "password": REMOTE_PASSWORD}
    made = keep(exposed, call(ann, "POST", remotes, form)).expect(201).json
    keep(exposed, call(ann, "POST", remotes, form)).expect(400)
    keep(exposed, call(ann, "GET", f"{remotes}?namespace=acme")).expect(200)
    itself = f"{remotes}/{made['id']}"
    keep(exposed, call(ann, "POST", f"{itself}/check", {"remoteRepository": "rem/there"})).expect(200)
    keep(exposed, call(ann, "PATCH", itself, {"password": WRONG_REMOTE_PASSWORD})).expect(200)
    keep(exposed, call(ann, "POST", f"{itself}/check", {"remoteRepository": "rem/there"})).expect(400)
    keep(exposed, call(ann, "PATCH", itself, {"password": [REMOTE_PASSWORD]})).expect(400)
    keep(exposed, call(admin, "PATCH", itself, {"authToken": REMOTE_TOKEN})).expect(200)
    keep(exposed, call(ann, "GET", itself)).expect(200)
    use_mirrors(exposed, ann, right, wrong)
    forget_failures(server)
    for client in (admin, ann):
        client.close()


def use_mirrors(exposed: Exposed, ann: Client, right: dict[str, str], wrong: dict[str, str]) -> None:
    """Policies to the other registry and from there, with its credentials: they work, and then no longer."""
    app = "/api/v0/repositories/acme/app"
    exposed.server.cli("repository", "create", "acme/polled")
    pushes, polls = f"{app}/pushMirroringPolicies", "/api/v0/repositories/acme/polled/pollMirroringPolicies"
    for policies in (pushes, polls):
        keep(exposed, call(ann, "POST", policies, wrong)).expect(400)
        keep(exposed, call(ann, "POST", policies, {**right, "rules": REMOTE_PASSWORD})).expect(400)
    forget_failures(exposed.server)
    pushed = keep(exposed, call(ann, "POST", f"{pushes}?initialEvaluation=true", right)).expect(201).json
    wait_until(
        lambda: statuses_of(call(ann, "GET", f"{app}/mirroringPolicies/{pushed['id']}/tags")) == {"mirrored"}
    )
    polled = keep(exposed, call(ann, "POST", f"{polls}?initialEvaluation=true", right)).expect(201).json
    of_poll = f"/api/v0/repositories/acme/polled/mirroringPolicies/{polled['id']}"
    wait_until(lambda: statuses_of(call(ann, "GET", f"{of_poll}/tags")) == {"mirrored"})
    by_hand = f"{app}/tags/v1/pushMirroring"
    keep(exposed, call(ann, "POST", by_hand, {**right, "remoteTag": "by-hand"})).expect(201)
    keep(exposed, call(ann, "POST", by_hand, {**wrong, "remoteTag": "by-hand"})).expect(400)
    exposed.server.cli("account", "passwd", "rem", "--password-stdin", stdin=f"{NEW_PASSWORD}\n")
    keep(exposed, call(ann, "POST", f"{of_poll}/run")).expect(202)

    def polled_in_vain() -> bool:
        return bool(call(ann, "GET", f"{polls}/{polled['id']}").json["lastStatus"]["code"] not in {"", "SUCCESS"})

    wait_until(polled_in_vain)
    keep(exposed, call(ann, "GET", f"{polls}/{polled['id']}")).expect(200)


def statuses_of(tags: Answer) -> set[str]:
    return {one["status"] for one in tags.json}


def use_api(exposed: Exposed) -> None:
    """All that takes or makes a secret in the API; the one answer that tells a new one is not kept."""
    server, secrets, new = exposed.server, exposed.secrets, Client(exposed.server, "bea", NEW_PASSWORD)
    admin, ann = Client(server), Client(server, "ann", USER_PASSWORD)
    user = {"name": "bea", "password": OLD_PASSWORD, "fullName": "Bea"}
    keep(exposed, call(admin, "POST", "/enzi/v0/accounts", user)).expect(201)
    keep(exposed, call(admin, "POST", "/enzi/v0/accounts", user)).expect(400)
    change = {"oldPassword": OLD_PASSWORD, "newPassword": NEW_PASSWORD}
    bea = Client(server, "bea", OLD_PASSWORD)
    keep(exposed, call(bea, "POST", "/enzi/v0/accounts/bea/changePassword", change)).expect(200)
    keep(exposed, call(new, "POST", "/enzi/v0/accounts/bea/changePassword", change)).expect(400, 401, 403)
    keep(exposed, call(bea, "GET", "/enzi/v0/id")).expect(401)
    told = [call(admin, "POST", "/api/v0/accounts/acme/robots", {"name": "ci", "description": "builds"})]
    robot = "/api/v0/accounts/acme/robots/ci/tokens"
    told[0].expect(200, 201)
    told += [
        call(admin, "POST", robot, {"tokenLabel": "robot"}).expect(200, 201),
        call(ann, "POST", "/api/v0/api_tokens", {"tokenLabel": "planted, too"}).expect(200),
        call(ann, "POST", "/enzi/v0/id/login", {"username": "ann", "password": USER_PASSWORD}).expect(200),
        call(ann, "POST", "/auth/login", {"username": "ann", "password": USER_PASSWORD}).expect(200),
    ]
    cookies = dict(re.findall(r"([\w-]+)=([^;,\s]{20,})", told[3].headers["set-cookie"]))
    names = [name for name in cookies if "csrf" in name.lower()]
    assert len(names) == 1
    made = {
        "robot's token": told[1].json["token"],
        "second access token": told[2].json["token"],
        "session": told[3].json["sessionToken"],
        "script's session": told[4].json["auth_token"],
        "CSRF token": cookies[names[0]],
    }
    secrets |= made | {
        "old password": OLD_PASSWORD,
        "new password": NEW_PASSWORD,
        "private key": PRIVATE_KEY,
        "password of an import": IMPORTED_PASSWORD,
    }
    session = {"Authorization": f"SessionToken {made['session']}"}
    keep(exposed, ann.send("GET", "/enzi/v0/id", headers=session)).expect(200)
    pem = f"-----BEGIN PRIVATE KEY-----\n{PRIVATE_KEY}\n-----END PRIVATE KEY-----\n"
    for key in (pem, PRIVATE_KEY):
        keep(exposed, call(ann, "POST", "/enzi/v0/accounts/ann/publicKeys", {"publicKey": key})).expect(400)
    for secret in (made["robot's token"], made["session"], made["CSRF token"], USER_PASSWORD, WRONG_PASSWORD):
        forget_failures(server)
        misuse_api(exposed, ann, secret)
    forget_failures(server)
    for client in (admin, ann, bea, new):
        client.close()


def misuse_api(exposed: Exposed, client: Client, secret: str) -> None:
    """Send a secret to the API where it does not belong."""
    wire = secret.encode().decode("latin-1")
    where = ("/api/v0/api_tokens", "/enzi/v0/accounts", "/api/v0/repositories/acme/app", "/api/v0/events")
    for path in where:
        for scheme in ("Bearer", "SessionToken", "Basic", "Token", ""):
            headers = {"Authorization": f"{scheme} {wire}".strip()}
            keep(exposed, client.send("GET", path, headers=headers))
        cookie = {"Cookie": f"session={wire}; __Host-session={wire}; csrf={wire}", "X-CSRF-Token": wire}
        keep(exposed, client.send("GET", path, headers=cookie))
        query = urlencode({"password": secret, "token": secret, "access_token": secret})
        keep(exposed, client.send("GET", f"{path}?{query}", headers={"Authorization": client.basic()}))
    given = {"Authorization": client.basic(), **JSON}
    forms: list[Any] = [
        {"username": secret, "password": "x"},
        {"username": {"is": secret}, "password": [secret]},
        {"username": "ann", "password": {"is": secret}},
        {"password": secret},
        secret,
        [secret],
    ]
    for form in forms:
        for path in ("/enzi/v0/id/login", "/auth/login"):
            keep(exposed, client.send("POST", path, json.dumps(form).encode(), JSON))
    forms = [
        {"name": "Not a name!", "password": secret},
        {"name": 5, "password": secret},
        {"name": "zoe", "password": [secret]},
        {"oldPassword": secret, "newPassword": {"is": secret}},
        {"newPassword": secret * 100},
    ]
    for form in forms:
        for path in ("/enzi/v0/accounts", "/enzi/v0/accounts/ann/changePassword", "/api/v0/meta/settings"):
            keep(exposed, client.send("POST", path, json.dumps(form).encode(), given))
            keep(exposed, client.send("POST", path, json.dumps(form).encode()[:-2], given))


def use_commands(exposed: Exposed, directory: Path) -> None:
    """The command on another machine, and the import and export of accounts."""
    remote = RemoteCommands(exposed.server, directory / "remote")
    exposed.shown.append(
        remote.run(
            "login", exposed.server.address, "--user", "ann", "--password-stdin", "--ca", str(exposed.server.ca),
            stdin=f"{USER_PASSWORD}\n",
        ).output
    )  # fmt: skip
    for command in (
        ("token", "list"),
        ("token", "list", "--json"),
        ("user", "show", "ann", "--json"),
        ("event", "list", "acme/app", "--json"),
        ("status",),
    ):
        result = remote.run(*command)
        assert result.exit_code in {0, 1}, result.output
        exposed.shown.append(result.output or "nothing")
    wrong = remote.run(
        "login", exposed.server.address, "--user", "ann", "--password-stdin", "--ca", str(exposed.server.ca),
        stdin=f"{WRONG_PASSWORD}\n",
    )  # fmt: skip
    assert wrong.exit_code == 1
    exposed.shown.append(wrong.output)
    given = directory / "import"
    given.mkdir()
    (given / "users.csv").write_text(f"name,password\nimported,{IMPORTED_PASSWORD}\nWrong!,{IMPORTED_PASSWORD}\n")
    for options in (("--dry-run",), (), ("--skip-invalid",)):
        exposed.shown.append(
            Commands(exposed.server).run("account", "import", str(given), *options).output or "nothing"
        )
    Commands(exposed.server)("account", "export", str(directory / "export"))
    files = [one.read_text() for one in (directory / "export").iterdir()]
    assert any("imported" in content for content in files)
    exposed.shown += files


def kept_secrets(server: Server) -> dict[str, str]:
    """The hashes of passwords, and what signs tokens, as the database has them."""

    async def work(application: Application) -> dict[str, str]:
        hashes = await application.database.fetch_all(
            Statement(text("SELECT name, password_hash FROM accounts WHERE password_hash IS NOT NULL"))
        )
        keys = await application.database.fetch_all(Statement(text("SELECT * FROM signing_keys")))
        found = {f"hash of {name}'s password": str(one) for name, one in hashes}
        for key in keys:
            for column in key:
                for secret in re.findall(r'"d": ?"([^"]+)"', str(column)):
                    found["signing key"] = secret
        return found

    found = server.do(work)
    assert len(found) > 3
    return found


def ask_for_everything(exposed: Exposed) -> None:
    """Every operation that reads, as an administrator, a user, and nobody."""
    server = exposed.server
    document = Client(server, None).send("GET", "/api/v0/openapi.json").expect(200).json
    names = {
        "namespace": "acme", "reponame": "app", "orgname": "acme", "org": "acme", "username": "ann", "user": "ann",
        "account": "ann", "nameOrID": "ann", "tag": "v1", "reference": "v1", "robot": "ci", "team": "devs",
        "teamname": "devs",
    }  # fmt: skip
    statuses = set()
    for client in (Client(server), Client(server, "ann", USER_PASSWORD), Client(server, None)):
        headers = {} if client.user is None else {"Authorization": client.basic()}
        for path, operations in document["paths"].items():
            if "get" in operations and "/logs" not in path:
                where = re.sub(r"\{(\w+)[^}]*\}", lambda found: names.get(found[1], "none"), path)
                answer = keep(exposed, client.send("GET", f"{where}?pageSize=1000&limit=1000", headers=headers))
                statuses.add(answer.status)
        for kind in ("jsonl", "csv", "json"):
            keep(exposed, client.send("GET", f"/api/v0/events/export?format={kind}", headers=headers))
        for path in ("/api/v0/openapi.json", "/docs/api", "/metrics"):
            keep(exposed, client.send("GET", path, headers=headers))
        client.close()
    admin = Client(server)
    jobs = keep(exposed, call(admin, "GET", "/api/v0/jobs?action=any&worker=any&running=any&limit=1000")).expect(
        200
    )
    for job in jobs.json["jobs"]:
        logs = keep(exposed, call(admin, "GET", f"/api/v0/jobs/{job['id']}/logs?limit=1000")).expect(200)
        exposed.told.append(f"{json.dumps(job)} {logs.body.decode()}")
    for kind in ("jsonl", "csv"):
        exposed.told.append(call(admin, "GET", f"/api/v0/events/export?format={kind}").expect(200).body.decode())
    admin.close()
    assert statuses >= {200, 401, 403}


def forget_failures(server: Server) -> None:
    """As if time had passed: whoever guesses so much is not listened to any more."""

    async def work(application: Application) -> None:
        statement = Statement(text("DELETE FROM login_failures"))
        await application.database.unit(lambda tx: tx.execute(statement))

    server.do(work)


def misuse(exposed: Exposed, client: Client, secret: str) -> None:
    """Send a secret where it does not belong."""
    wire = secret.encode().decode("latin-1")  # what a header carries
    basic = base64.b64encode(f"ann:{secret}".encode()).decode()
    form = {"grant_type": "refresh_token", "refresh_token": secret[:-1] + "!"}
    keep(exposed, client.send("POST", "/auth/token", urlencode(form).encode(), FORM))
    form = {"grant_type": secret, "refresh_token": secret, "password": secret, "client_id": "c", "scope": secret}
    keep(exposed, client.send("POST", "/auth/token", urlencode(form).encode(), FORM))
    keep(exposed, client.send("POST", "/auth/token", secret.encode(), {"Content-Type": "application/json"}))
    query = urlencode({"access_token": secret, "password": secret, "token": secret})
    for path in ("/v2/", "/v2/acme/app/tags/list", "/auth/token", "/", "/health", "/nothing"):
        keep(exposed, client.send("GET", f"{path}?{query}"))
    keep(exposed, client.send("GET", f"/auth/token?scope={quote(f'repository:acme/{secret}:pull')}"))
    for scheme in ("Bearer", "Basic", "Digest", "Token", "bearer", ""):
        for path in ("/v2/", "/v2/acme/app/manifests/v1", "/auth/token"):
            keep(exposed, client.send("GET", path, headers={"Authorization": f"{scheme} {wire}".strip()}))
    for path in ("/v2/", "/v2/acme/app/manifests/v1"):
        keep(exposed, client.send("GET", path, headers={"Authorization": f"Basic {basic}"}))
    for name in ("User-Agent", "Referer", "Cookie", "X-Registry-Auth", "X-Forwarded-For", "Range", "Content-Type"):
        keep(exposed, client.send("GET", "/v2/acme/app/tags/list", headers={name: wire}))
    authorized = {"Authorization": f"Bearer {client.token('repository:acme/app:pull,push')}"}
    for name in ("Range", "If-None-Match", "Accept"):
        path = f"/v2/acme/app/blobs/{digest_of(b'nothing')}"
        keep(exposed, client.send("GET", path, headers={**authorized, name: wire}))
    manifest = json.dumps({"schemaVersion": 2, "mediaType": secret, "config": {"digest": secret}}).encode()
    for body in (manifest, manifest[:-5]):
        kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        answer = client.send("PUT", "/v2/acme/app/manifests/v2", body, {**authorized, **kind})
        assert answer.status == 400
    if secret.startswith(("dtr", "ey")):  # a path is logged, and what looks like a token is masked there
        for path in (
            f"/v2/{secret}",
            f"/v2/acme/app/manifests/{secret}",
            f"/v2/acme/{secret}/tags/list",
            f"/{secret}",
        ):
            client.send("GET", path, headers=authorized)


def break_database(exposed: Exposed, cluster: Any) -> None:
    """Let the database fail under requests that carry secrets."""
    server = exposed.server
    name = urlsplit(server.environment["DTR_DATABASE__URL"]).path[1:]
    client = Client(server, "ann", USER_PASSWORD)
    client.token("repository:acme/app:pull,push,delete")
    execute(
        cluster.url("postgres"),
        f"UPDATE pg_database SET datallowconn = false WHERE datname = '{name}'",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    try:
        keep(exposed, client.call("GET", "/v2/acme/app/tags/list")).expect(503)
        keep(exposed, client.call("POST", "/v2/acme/app/blobs/uploads/")).expect(503)
        keep(exposed, client.send("GET", "/auth/token", headers={"Authorization": client.basic()})).expect(503)
        wait_until(lambda: keep(exposed, client.send("GET", "/health")).status == 503)
        for command in (("doctor",), ("account", "list"), ("migrate",)):
            result = Commands(server).run(*command)
            assert result.exit_code == 1
            exposed.shown.append(result.output)
    finally:
        execute(cluster.url("postgres"), f"UPDATE pg_database SET datallowconn = true WHERE datname = '{name}'")
    client.call("GET", "/v2/acme/app/tags/list").expect(200)
    client.close()


def break_storage(exposed: Exposed, s3: Any) -> None:
    """Let the storage fail: by a wrong key, and by its absence."""
    server = exposed.server
    wrong = Server(server.directory.with_name("wrong"), {**s3.settings, "log.level": "debug"}, workers=1)
    wrong.environment |= {
        name: value
        for name, value in server.environment.items()
        if name.startswith(("DTR_DATABASE", "DTR_STORAGE")) or name == "DTR_ADMIN_PASSWORD"
    }
    wrong.environment["DTR_STORAGE__S3__SECRET_KEY"] = WRONG_KEY
    if "DTR_DATABASE__URL" not in wrong.environment:
        wrong.environment["DTR_DATABASE__URL"] = f"sqlite:///{server.directory}/metadata.db"
    wrong.start()
    for secret in (USER_PASSWORD, exposed.secrets["access token"]):
        client = Client(wrong, "ann", secret)
        for data in (os.urandom(50_000), os.urandom(100_000)):
            path = f"/v2/acme/app/blobs/uploads/?digest={quote(digest_of(data))}"
            keep(exposed, client.call("POST", path, data)).expect(503)
        wait_until(lambda c=client: keep(exposed, c.send("GET", "/health")).status == 503)
        client.close()
    exposed.shown += [Commands(wrong).run("doctor").output, wrong.greeting]
    wrong.close()
    exposed.shown.append(wrong.log)
    s3.process.terminate()
    s3.process.wait(20)
    client = Client(server, "ann", USER_PASSWORD)
    data = os.urandom(50_000)
    keep(exposed, client.call("POST", f"/v2/acme/app/blobs/uploads/?digest={digest_of(data)}", data)).expect(503)
    image = client.get_manifest("acme/app", "v1").expect(200).json
    keep(exposed, client.get_blob("acme/app", image["layers"][0]["digest"])).expect(503)
    client.close()


def keep(exposed: Exposed, answer: Answer) -> Answer:
    exposed.answers.append(answer)
    return answer


def test_not_in_the_log(exposed: Exposed) -> None:
    for line in exposed.server.log.splitlines():
        exposed.assert_hidden(line, "the log")


def test_not_in_what_others_are_told(exposed: Exposed) -> None:
    assert any("dtr@32473" in told for told in exposed.told)
    assert any("x-dtr-signature-256" in told for told in exposed.told)
    assert any("WEBHOOK" in told.upper() for told in exposed.told)
    for told in exposed.told:
        exposed.assert_hidden(told, "what others are told")


def test_addresses_of_receivers_are_known_to_those_who_manage_them_only(exposed: Exposed) -> None:
    """Many a service takes whoever knows its address for a friend."""
    for found in (*exposed.told, exposed.server.log):
        assert HOOK not in found, around(found, HOOK)


def test_not_in_the_greeting(exposed: Exposed) -> None:
    exposed.assert_hidden(exposed.server.greeting, "the greeting")


def test_not_in_what_commands_print(exposed: Exposed) -> None:
    assert any("storage.s3.secret_key" in shown for shown in exposed.shown)
    for shown in exposed.shown:
        exposed.assert_hidden(shown, "what a command printed")


def test_not_in_answers(exposed: Exposed) -> None:
    assert {answer.status for answer in exposed.answers} >= {200, 400, 401, 404, 503}
    for answer in exposed.answers:
        exposed.assert_hidden(f"{answer.headers} {answer.body.decode('utf-8', 'replace')}", "an answer")


@pytest.mark.parametrize("path", ["/metrics", "/health", "/_ping", "/login", "/auth/jwks.json", "/ca"])
def test_not_in_what_anybody_may_ask_for(exposed: Exposed, path: str) -> None:
    answer = Client(exposed.server, None).send("GET", path).expect(200, 503)
    exposed.assert_hidden(f"{answer.headers} {answer.body.decode()}", path)


def test_not_in_the_database(exposed: Exposed) -> None:
    """Only hashes of passwords and tokens are kept."""
    url = exposed.server.environment.get("DTR_DATABASE__URL")
    if url is None:
        file = exposed.server.directory / "metadata.db"
        with sqlite3.connect(file) as connection:
            content = "\n".join(connection.iterdump())
        connection.close()
        raw = [path.read_bytes() for path in file.parent.glob("metadata.db*")]
        assert len(raw) > 1
        content += "".join(one.decode("latin-1") for one in raw)
    else:
        content = asyncio.run(dump(url))
    assert "$argon2id$" in content
    assert "acme/app" in content
    exposed.assert_hidden(content, "the database", may_be_kept=True)


async def dump(url: str) -> str:
    connection = await asyncpg.connect(url)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [await connection.fetch(f"SELECT t::text FROM {table['tablename']} t") for table in tables]
    await connection.close()
    return "\n".join(row[0] for of_table in rows for row in of_table)


def test_not_in_the_data_directory(exposed: Exposed) -> None:
    files = {path for path in exposed.server.directory.rglob("*") if path.is_file()}
    key = exposed.server.directory / "secret.key"
    assert key in files
    for path in files - {key}:
        exposed.assert_hidden(path.read_bytes().decode("latin-1") or "empty", str(path), may_be_kept=True)


def test_not_in_the_list_of_processes(exposed: Exposed) -> None:
    for pid in (exposed.server.pid, *exposed.server.worker_pids):
        exposed.assert_hidden(Path(f"/proc/{pid}/cmdline").read_text(), "the list of processes")


def test_every_line_of_the_log_is_json_with_what_is_known_of_a_request(exposed: Exposed) -> None:
    def logged() -> dict[str, Any]:
        lines = [json.loads(line) for line in exposed.server.log.splitlines()]
        for line in lines:
            assert {"time", "level", "logger", "event"} <= set(line)
        return {line["request_id"]: line for line in lines if line["event"] == "request"}

    wait_until(lambda: set(exposed.request_ids) <= set(logged()))
    for number in exposed.request_ids:
        line = logged()[number]
        assert (line["actor"], line["repository"]) == ("ann", "acme/app")
        assert (line["method"], line["path"], line["status"]) == ("GET", "/v2/acme/app/tags/list", 200)


def test_every_answer_names_its_request(exposed: Exposed) -> None:
    numbers = [answer.headers["x-request-id"] for answer in exposed.answers]
    assert len(set(numbers)) == len(numbers)
