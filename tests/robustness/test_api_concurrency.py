"""Administrators, pushers and pullers in each other's way: every answer is one or the other, nothing half."""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pytest
from tests.support.api import Api, User
from tests.support.client import Answer, Client
from tests.support.images import Image, digest_of, make_image
from tests.support.invariants import find_violations
from tests.support.server import Server
from tests.support.wire import wait_until

from dtr.app import Application

T = TypeVar("T")

PATIENCE = 120
"""Seconds for everything that goes on at once, on a busy machine."""
CREATORS = 16
REFUSALS = {401, 403, 404}
"""Of a push or a pull of what is gone, or is not to be touched any more."""


@pytest.fixture(scope="module")
def api(two_workers: Server) -> Api:
    """A server of two workers, on both databases; `root` is another administrator."""
    api = Api(two_workers)
    api.make_users("root", is_admin=True)
    api.make_users("ann", "bob", "cyd", "dan", "reader", "writer")
    for organization in ("acme", "apex"):
        api.make_organization(organization)
    return api


def at_once(actions: Sequence[Callable[[], T]]) -> list[T]:
    """What the actions give, each done by a thread of its own; all begin at the same moment."""
    together = threading.Barrier(len(actions))
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            together.wait(PATIENCE)
            results[number] = actions[number]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(actions))]


def new_name() -> str:
    return f"r{uuid.uuid4().hex[:12]}"


def new_repository(api: Api, namespace: str = "acme", **settings: Any) -> str:
    """The path of a new, empty repository."""
    path = f"{namespace}/{new_name()}"
    api.make_repository(path, **settings)
    return path


def assert_sound(server: Server) -> None:
    """What is due is swept, nothing breaks a rule, and the audit finds nothing."""

    async def work(application: Application) -> list[str]:
        await application.usage.fold()
        while (await application.sweeper.sweep()).objects:
            pass
        return await find_violations(application.database, application.storage)

    deadline = time.monotonic() + PATIENCE
    while violations := server.do(work):  # the server collects what was deleted, meanwhile
        assert time.monotonic() < deadline, violations
    audit = server.cli("fsck", "--content", check=False)
    assert audit.returncode == 0, audit.stdout
    assert "Traceback" not in server.log, server.log[-5000:]


@dataclass
class Push:
    """One push of an image under a tag: when it was, and what became of it."""

    tag: str
    image: Image
    begun: float
    ended: float
    answer: Answer
    """The last one: of the manifest, or what refused the push before."""

    @property
    def is_done(self) -> bool:
        return self.answer.status == 201


def push(client: Client, path: str, tag: str) -> Push:
    """Push a new image; whatever is refused ends it."""
    image = make_image(size=2000)
    begun = time.monotonic()
    answer = _push(client, path, image, tag)
    assert answer.status in REFUSALS | {201}, answer
    return Push(tag, image, begun, time.monotonic(), answer)


def _push(client: Client, path: str, image: Image, tag: str) -> Answer:
    for blob in image.blobs:
        where = f"/v2/{path}/blobs/uploads/"
        if len(blob) % 2:
            answer = client.call("POST", f"{where}?digest={digest_of(blob)}", blob)
        else:
            answer = client.call("POST", where)
            if answer.status == 202:
                location = answer.headers["location"]
                answer = client.call("PUT", f"{location}?digest={digest_of(blob)}", blob)
        if answer.status != 201:
            return answer
    return client.put_manifest(path, image, tag)


# --- accounts ----------------------------------------------------------------------------------------------------


def test_two_administrators_change_one_team(api: Api) -> None:
    team = new_name()
    api.make_team(f"acme/{team}")
    path = f"/enzi/v0/accounts/acme/teams/{team}"
    users = ("ann", "bob", "cyd", "dan")

    def work(name: str, seed: int) -> list[Answer]:
        user, chance = User(api.server, name), random.Random(seed)
        answers = []
        for number in range(25):
            member = f"{path}/members/{chance.choice(users)}"
            answers.append(
                chance.choice(
                    (
                        lambda m=member: user.put(m, {"isAdmin": chance.random() < 0.5}),
                        lambda m=member: user.delete(m),
                        lambda n=number: user.patch(path, {"description": f"{name} {n}"}),
                    )
                )()
            )
        return answers

    answers = at_once([partial(work, "admin", 1), partial(work, "root", 2)])
    assert {answer.status for answer in itertools.chain(*answers)} <= {200, 204, 404}
    members = api.admin.get(f"{path}/members", limit=100).expect(200).json["members"]
    record = api.admin.get(path).expect(200).json
    assert record["membersCount"] == len(members)
    assert len({one["member"]["name"] for one in members}) == len(members)
    everybody = api.admin.get("/enzi/v0/accounts/acme/members", limit=100).expect(200).json["members"]
    assert {one["member"]["name"] for one in members} <= {one["member"]["name"] for one in everybody}
    writes = [f"{name} {number}" for name in ("admin", "root") for number in range(25)]
    assert record["description"] in ["", *writes]


def test_two_administrators_change_one_user(api: Api) -> None:
    name = new_name()
    api.make_users(name)
    path = f"/enzi/v0/accounts/{name}"

    def work(admin: str) -> set[int]:
        user = User(api.server, admin)
        return {
            user.patch(path, {"fullName": f"{admin} {number}", "isActive": admin == "root"}).status
            for number in range(20)
        }

    assert set.union(*at_once([lambda: work("admin"), lambda: work("root")])) == {200}
    record = api.admin.get(path).expect(200).json
    # A change is whole: what comes from one is never mixed with what comes from the other.
    assert (record["fullName"].split()[0] == "root") == record["isActive"]
    assert record["fullName"].split()[1] == "19"


def test_two_administrators_who_depose_each_other_leave_one(api: Api) -> None:
    for _ in range(8):
        answers = at_once(
            [
                lambda: User(api.server, "admin").patch("/enzi/v0/accounts/root", {"isAdmin": False}),
                lambda: User(api.server, "root").patch("/enzi/v0/accounts/admin", {"isAdmin": False}),
            ]
        )
        (left,) = api.rows("SELECT count(*) FROM accounts WHERE is_admin AND is_active")
        assert left[0] >= 1, [answer.body for answer in answers]
        assert {answer.status for answer in answers} <= {200, 400, 401, 403, 409}
        api.change("UPDATE accounts SET is_admin = true WHERE name IN ('admin', 'root')")


@pytest.mark.parametrize("kind", ["repository", "account", "team"])
def test_of_many_who_create_the_same_one_wins(api: Api, kind: str) -> None:
    name = new_name()
    path, form, code = {
        "repository": ("/api/v0/repositories/acme", {"name": name}, "REPOSITORY_EXISTS"),
        "account": ("/enzi/v0/accounts", {"name": name, "isOrg": True}, "ACCOUNT_EXISTS"),
        "team": ("/enzi/v0/accounts/acme/teams", {"name": name}, "TEAM_EXISTS"),
    }[kind]
    users = [User(api.server, ("admin", "root")[number % 2]) for number in range(CREATORS)]
    answers = at_once([partial(user.post, path, form) for user in users])
    assert sorted(answer.status for answer in answers) == [201] + [400] * (CREATORS - 1)
    assert {tuple(answer.codes) for answer in answers if answer.status == 400} == {(code,)}


def test_one_name_for_a_repository_that_is_made_and_one_that_is_renamed(api: Api) -> None:
    for _ in range(6):
        old, name = new_repository(api), new_name()
        made, renamed = at_once(
            [
                lambda n=name: User(api.server, "root").post("/api/v0/repositories/acme", {"name": n}),
                lambda o=old, n=name: User(api.server, "admin").post(
                    f"/api/v0/repositories/{o}/rename", {"name": n}
                ),
            ]
        )
        assert sorted((made.status // 100, renamed.status // 100)) == [2, 4]
        assert (made if made.status == 400 else renamed).codes == ["REPOSITORY_EXISTS"]
        assert api.admin.get(f"/api/v0/repositories/acme/{name}").expect(200).json["name"] == name
        # The one that lost its race is where it was, the other one has moved.
        api.admin.get(f"/api/v0/repositories/{old}").expect(200 if made.status == 201 else 308)


# --- pushes ------------------------------------------------------------------------------------------------------


def pushing(
    client: Client, path: str, stop: threading.Event, name: str, done: list[Push] | None = None
) -> list[Push]:
    """Push one image after the other until `stop`, and one more; what is pushed is told in `done` at once."""
    pushes = []
    for number in itertools.count():
        was_last = stop.is_set()
        pushes.append(push(client, path, f"{name}-{number}"))
        if done is not None and pushes[-1].is_done:
            done.append(pushes[-1])
        if was_last:
            return pushes
    raise AssertionError("not reached")


def wait_for_pushes(done: list[Push]) -> None:
    """Some seconds of a slow machine, or a second of a fast one."""
    time.sleep(1)
    wait_until(lambda: len(done) >= 4, PATIENCE)


def test_a_repository_that_is_deleted_and_made_again_during_pushes_has_only_whole_images(api: Api) -> None:
    path, stop = new_repository(api), threading.Event()
    name = path.partition("/")[2]
    rounds: list[tuple[float, float]] = []

    def administer() -> list[Push]:
        user = User(api.server, "root")
        for _ in range(5):
            time.sleep(0.3)
            begun = time.monotonic()
            user.delete(f"/api/v0/repositories/{path}").expect(204)
            rounds.append((begun, time.monotonic()))
            time.sleep(0.1)
            user.post("/api/v0/repositories/acme", {"name": name}).expect(201)
        time.sleep(0.3)
        stop.set()
        return []

    pushers = [partial(pushing, Client(api.server), path, stop, f"p{number}") for number in range(4)]
    pushes = list(itertools.chain(*at_once([*pushers, administer])))
    listed = set(Client(api.server).call("GET", f"/v2/{path}/tags/list").expect(200).json["tags"])
    done = [one for one in pushes if one.is_done]
    assert {one.is_done for one in pushes} == {True, False}
    for one in done:
        if one.begun > rounds[-1][1]:
            assert one.tag in listed, f"{one.tag} was acknowledged and is gone"
        if one.ended < rounds[-1][0]:
            assert one.tag not in listed, f"{one.tag} outlived its repository"
    client = Client(api.server)
    for one in done:
        if one.tag in listed:
            client.assert_whole(path, one.image, one.tag)
    assert listed <= {one.tag for one in done}
    assert_sound(api.server)


def test_sixteen_pushers_at_a_tag_limit_leave_the_newest_tags(api: Api) -> None:
    limit = 5
    path = new_repository(api, tag_limit=limit)
    clients = [Client(api.server) for _ in range(16)]

    def work(number: int) -> list[Push]:
        return [push(clients[number], path, f"t{number}-{one}") for one in range(3)]

    pushes = {one.tag: one for one in itertools.chain(*at_once([partial(work, number) for number in range(16)]))}
    assert all(one.is_done for one in pushes.values())
    left = Client(api.server).call("GET", f"/v2/{path}/tags/list").expect(200).json["tags"]
    assert len(left) == limit
    for tag, gone in pushes.items():  # a tag is as old as some moment of its push
        if tag not in left:
            assert all(gone.begun < pushes[other].ended for other in left), f"{tag} is newer than what is left"
    for tag in left:
        Client(api.server).assert_whole(path, pushes[tag].image, tag)
    assert_sound(api.server)


def test_a_grant_that_is_taken_back_ends_the_pushes(api: Api) -> None:
    path, team, stop = new_repository(api), new_name(), threading.Event()
    api.make_team(f"acme/{team}", "writer")
    access = f"/api/v0/repositories/{path}/teamAccess/{team}"
    done: list[Push] = []
    taken_back: list[tuple[float, float]] = []

    def administer() -> list[Push]:
        user = User(api.server, "admin")
        user.put(access, {"accessLevel": "read-write"}).expect(200)
        wait_for_pushes(done)
        begun = time.monotonic()
        user.delete(access).expect(204)
        taken_back.append((begun, time.monotonic()))
        time.sleep(0.5)
        stop.set()
        return []

    api.admin.put(access, {"accessLevel": "read-write"}).expect(200)
    pushers = [
        partial(pushing, Client(api.server, "writer"), path, stop, f"p{number}", done) for number in range(4)
    ]
    pushes = list(itertools.chain(*at_once([*pushers, administer])))
    begun, ended = taken_back[0]
    for one in pushes:
        assert not (one.is_done and one.begun > ended), "a push without the right"
        assert one.is_done or one.ended > begun, "refused before the right was taken back"
    client = Client(api.server)
    for one in pushes:
        if one.is_done:
            client.assert_whole(path, one.image, one.tag)
    assert_sound(api.server)


def test_an_account_that_is_deleted_while_it_pushes_leaves_nothing(api: Api) -> None:
    name, stop = new_name(), threading.Event()
    api.make_users(name)
    path = new_repository(api, name)
    done: list[Push] = []
    ended: list[float] = []

    def administer() -> list[Push]:
        wait_for_pushes(done)
        User(api.server, "admin").delete(f"/api/v0/accounts/{name}").expect(204)
        ended.append(time.monotonic())
        time.sleep(0.3)
        stop.set()
        return []

    clients = [Client(api.server, name) for _ in range(4)]
    for client in clients:
        client.token(f"repository:{path}:pull,push,delete")  # which outlives the account
    pushers = [partial(pushing, client, path, stop, f"p{number}", done) for number, client in enumerate(clients)]
    pushes = list(itertools.chain(*at_once([*pushers, administer])))
    assert not any(one.is_done and one.begun > ended[0] for one in pushes)
    assert api.admin.get(f"/enzi/v0/accounts/{name}").codes == ["NO_SUCH_ACCOUNT"]
    api.make_users(name)  # somebody else with the same name
    assert api.as_(name).get(f"/api/v0/repositories/{name}").expect(200).json == {"repositories": []}
    assert_sound(api.server)


# --- pulls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["renamed", "deleted"])
def test_a_token_reads_no_other_repository_that_gets_the_name(api: Api, way: str) -> None:
    """For reading, a token is good for its life; but not for what has the name of its repository by then."""
    path = new_repository(api)
    name, image, secret = path.partition("/")[2], make_image(), make_image()
    owner, reader = Client(api.server), Client(api.server, "reader")
    api.admin.put(f"/api/v0/repositories/{path}/userAccess/reader", {"accessLevel": "read-only"}).expect(200)
    owner.push(path, image, "v1")
    reader.assert_whole(path, image, "v1")
    if way == "renamed":
        api.admin.post(f"/api/v0/repositories/{path}/rename", {"name": new_name()}).expect(200)
        reader.assert_whole(path, image, "v1")  # on the way that a rename leaves
    else:
        api.admin.delete(f"/api/v0/repositories/{path}").expect(204)
    api.admin.post("/api/v0/repositories/acme", {"name": name}).expect(201)
    owner.push(path, secret, "v1")
    owner.assert_whole(path, secret, "v1")  # with a token of before, but with the right
    blob = digest_of(secret.blobs[0])
    for where in ("manifests/v1", f"manifests/{secret.digest}", f"blobs/{blob}", "tags/list", f"referrers/{blob}"):
        for method in ("GET", "HEAD"):
            answer = reader.call(method, f"/v2/{path}/{where}")
            assert answer.status == 401, f"{method} {where}: {answer}"


def test_pulls_of_repositories_that_change_their_names_are_whole_or_refused(api: Api) -> None:
    """Two change names and namespaces without end; who may read one of them never gets the other's content."""
    first, second = new_repository(api), new_repository(api)
    images = {path: make_image(size=30_000) for path in (first, second)}
    for path, image in images.items():
        Client(api.server).push(path, image, "v1")
    api.admin.put(f"/api/v0/repositories/{first}/userAccess/reader", {"accessLevel": "read-only"}).expect(200)
    stop = threading.Event()
    x, y = first.partition("/")[2], second.partition("/")[2]
    spare = new_name()

    def administer() -> int:
        user = User(api.server, "admin")

        def rename(source: str, namespace: str, name: str) -> None:
            user.post(f"/api/v0/repositories/{source}/rename", {"namespace": namespace, "name": name}).expect(200)

        deadline = time.monotonic() + PATIENCE / 2
        for exchange in itertools.count(1):  # the names are exchanged by way of a third one
            rename(f"acme/{x}", "acme", spare)
            rename(f"acme/{y}", "acme", x)
            rename(f"acme/{spare}", "acme", y)
            # On a slow machine a pull takes longer than the pause of a fast one.
            time.sleep(max(0.05, 0.01 * exchange))
            # An even number of exchanges, of which everybody had something.
            if exchange >= 6 and exchange % 2 == 0 and (min(whole) > 0 or time.monotonic() > deadline):
                break
        stop.set()
        return 0

    def pull(number: int, name: str | None) -> int:
        """How often an image came whole; None: as an administrator, who may read both."""
        client = Client(api.server, name or "admin")
        mine = [images[first]] if name else list(images.values())
        while not stop.is_set():
            for path in (f"acme/{x}", f"acme/{y}", f"acme/{spare}"):
                client._tokens.clear()
                answer = client.get_manifest(path, "v1")
                assert answer.status in REFUSALS | {200}, answer
                if answer.status != 200:
                    continue
                (image,) = [one for one in images.values() if one.payload == answer.body]
                assert image in mine, "a manifest of a repository that this user may not read"
                blobs = [client.get_blob(path, digest_of(blob)) for blob in image.blobs]
                assert {one.status for one in blobs} <= REFUSALS | {200}
                for blob, one in zip(image.blobs, blobs, strict=True):
                    assert one.status != 200 or one.body == blob
                whole[number] += all(one.status == 200 for one in blobs)
        return whole[number]

    pullers = (None, None, "reader", "reader")
    whole = [0] * len(pullers)
    counts = at_once([administer, *(partial(pull, number, name) for number, name in enumerate(pullers))])
    assert min(counts[1:]) > 0
    for path, image in zip((f"acme/{x}", f"acme/{y}"), images.values(), strict=True):
        Client(api.server).assert_whole(path, image, "v1")
    assert_sound(api.server)
