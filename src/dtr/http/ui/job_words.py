"""What jobs do, need and count, in words for people; what is not here is shown as the program calls it."""

from __future__ import annotations


def N_(text: str) -> str:  # noqa: N802 - as everywhere: it marks what is translated where it is shown
    """A text that is translated later."""
    return text


TITLES = {
    "onlinegc": N_("Garbage collection"),
    "onlinegc_metadata": N_("Collect manifests and blobs"),
    "onlinegc_blobs": N_("Collect uploads and objects"),
    "onlinegc_events": N_("Delete old events"),
    "onlinegc_joblogs": N_("Delete old jobs"),
    "tag_prune": N_("Prune tags"),
    "tag_pruning": N_("Prune tags"),
    "promote": N_("Promote and mirror a push"),
    "verify_signatures": N_("Verify signatures"),
    "push_mirror_tag": N_("Push to mirrors"),
    "poll_mirror": N_("Pull from mirrors"),
    "cache_expire": N_("Expire tags of caches"),
    "trust_prune": N_("Delete old files of content trust"),
    "webhook": N_("Deliver a webhook"),
    "fsck": N_("Check and repair"),
    "import_storage": N_("Import a storage"),
    "storage_migrate": N_("Move blobs to a storage"),
    "sleep": N_("Sleep"),
    "false": N_("Fail"),
}
TEXTS = {
    "onlinegc": N_(
        "Deletes what nothing holds any more, and what is old: manifests, blobs, uploads, sessions, tokens,"
        " events, jobs. Pushes and pulls go on."
    ),
    "onlinegc_metadata": N_("Deletes manifests, blobs and deleted repositories that nothing holds any more."),
    "onlinegc_blobs": N_("Gives up uploads that are over, and deletes objects of the storage that nothing names."),
    "onlinegc_events": N_("Deletes old events, as the settings say."),
    "onlinegc_joblogs": N_("Deletes old jobs and their logs, as the settings say."),
    "tag_prune": N_("Deletes the tags that pruning policies mean: of all repositories, or of one."),
    "verify_signatures": N_("Finds out whose signatures are: everywhere, or in one place."),
    "push_mirror_tag": N_("Shows all tags to one push mirroring policy."),
    "poll_mirror": N_("Brings tags from another registry: by one policy, or by all that are on."),
    "cache_expire": N_("Deletes tags of caches that nobody pulled for as long as their upstreams keep them."),
    "trust_prune": N_("Deletes files of content trust that newer ones took the place of long ago."),
    "fsck": N_("Compares the database with the storages, and repairs what can be."),
    "import_storage": N_("Takes over the images that another registry left in a storage."),
    "storage_migrate": N_("Moves blobs to another storage, which takes new ones from then on."),
    "sleep": N_("Waits, to try the queue."),
    "false": N_("Fails at once, to try the queue."),
}
"""Of those that somebody starts; others are made by what happens."""
LABELS = {
    "after": N_("Begin behind"),
    "anyDeletions": N_("Delete however many tags are gone at the other registry"),
    "content": N_("Read every blob"),
    "copied": N_("Look only for what was copied by hand"),
    "createNamespaces": N_("Make organizations that are missing"),
    "dryRun": N_("Dry run"),
    "everything": N_("Also what has not changed"),
    "from": N_("From these storages"),
    "grace": N_("Grace"),
    "keepSource": N_("Keep the blobs where they were, too"),
    "manifest": N_("Manifest"),
    "names": N_("Repositories"),
    "namespace": N_("Namespace"),
    "parallel": N_("At a time"),
    "policy": N_("Policy"),
    "prefix": N_("Prefix"),
    "rate": N_("Bytes a second"),
    "repair": N_("Repair"),
    "repository": N_("Repository"),
    "resume": N_("Go on where the last one stopped"),
    "seconds": N_("Seconds"),
    "storage": N_("Storage"),
    "time": N_("For how long"),
    "to": N_("To the storage"),
    "unsafe": N_("Allow a grace below 10 minutes"),
    "verify": N_("Compare every digest"),
    "visibility": N_("Visibility"),
}
HINTS = {
    "after": N_("A place of a storage, as the log of a check says it."),
    "dryRun": N_("Says what there is, and changes nothing."),
    "from": N_("Names of storages with commas between. Empty: all others."),
    "grace": N_("What was let go so long ago is deleted, like 24h. Empty: as the settings say."),
    "manifest": N_("The digest of a manifest of the repository."),
    "names": N_("Names with commas between; * stands for any part. Empty: all."),
    "namespace": N_("Where repositories without a namespace of their own go."),
    "parallel": N_("How many blobs are copied at a time. Empty: 4."),
    "policy": N_("The id of a policy."),
    "prefix": N_("The directory in the storage below which the other registry kept its files."),
    "rate": N_("Empty: as fast as it can."),
    "repair": N_("Brings back what is lost where that is possible, and marks the rest."),
    "repository": N_("The id of a repository, a number. Empty: all."),
    "resume": N_("For a check that was stopped by its time."),
    "seconds": N_("Empty: 60."),
    "storage": N_("The name of a storage. Empty: default."),
    "time": N_("Like 2h. Empty: until it is done."),
    "to": N_("The name of a storage."),
    "unsafe": N_("A push under way may lose what it was told to be there."),
    "verify": N_("Reads what was copied or found, and compares it with its digest."),
    "visibility": N_("public or private; empty: private."),
}
NAMESPACE_OF_SIGNATURES = N_("The id of the account that owns the namespace. Empty: all.")
PARTS = {
    "blobs": N_("{done} of {total} blobs"),
    "bytes": N_("{done} of {total}"),
    "files": N_("{done} of {total} files"),
    "links": N_("{done} of {total} links"),
    "manifests": N_("{done} of {total} manifests"),
    "objects": N_("{done} of {total} objects"),
    "rows": N_("{done} of {total} entries looked at"),
    "seconds": N_("{done} of {total} seconds"),
    "tags": N_("{done} of {total} tags"),
}
"""How far a job is, by its unit, when it knows how far it goes."""
COUNTS = {
    "blobs": N_("{done} blobs so far"),
    "bytes": N_("{done} so far"),
    "files": N_("{done} files so far"),
    "links": N_("{done} links so far"),
    "manifests": N_("{done} manifests so far"),
    "objects": N_("{done} objects so far"),
    "rows": N_("{done} entries looked at so far"),
    "seconds": N_("{done} seconds so far"),
    "tags": N_("{done} tags so far"),
}
"""The same when it does not."""
RESULTS = {
    "repositories": N_("Repositories"),
    "manifests": N_("Manifests"),
    "links": N_("Links of blobs"),
    "blobs": N_("Blobs"),
    "blobBytes": N_("Size of these blobs"),
    "bytes": N_("Size"),
    "uploads": N_("Uploads"),
    "objects": N_("Objects of the storage"),
    "storedBytes": N_("Freed at the storage"),
    "sessions": N_("Sessions"),
    "tokens": N_("Tokens"),
    "events": N_("Events"),
    "jobs": N_("Jobs"),
    "damage": N_("Findings that are damage"),
    "notes": N_("Other findings"),
    "failed": N_("Failed"),
    "missing": N_("Missing blobs"),
    "foreign": N_("Objects that nothing names"),
    "foreignBytes": N_("Size of these objects"),
    "quarantined": N_("Blobs put aside"),
}
"""What a job came to, by the names in its result."""
SIZES = frozenset({"bytes", "blobBytes", "foreignBytes", "storedBytes"})
"""Those of the results, and of the units, that are bytes."""
