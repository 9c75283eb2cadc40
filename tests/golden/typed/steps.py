"""Migrations that both programs run."""


def migrate_v1(d):
    """Call people users."""
    d["users"] = d.pop("people")


def migrate_v2(d, ctx):
    """Ages are numbers; who has no date joined in the year of the step."""
    assert ctx.filename.name.endswith(".kantadb")
    for user in d["users"].values():
        user["age"] = int(user["age"])
        user["joined"] = user["joined"] or "2002-01-01T00:00:00Z"
