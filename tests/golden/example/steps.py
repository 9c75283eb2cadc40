"""The application's migrations, for either program."""


def migrate_v1(d, ctx):
    """People are users, and who has no address has none."""
    d["users"] = {key: {"name": one["name"], "email": one["mail"] or None} for key, one in d.pop("people").items()}
