"""Public schemas for benches/audit.py: where they are, and the SQL that makes them. Nothing of them is kept here."""

import re
import subprocess
from dataclasses import dataclass


@dataclass
class Source:
    name: str
    repository: str
    # Files, in order; `*` stands for a folder of migrations, in the order of their names.
    files: tuple
    before: str = ""


ROLES = "CREATE SCHEMA IF NOT EXISTS musicbrainz; SET search_path = musicbrainz, public;\n"

CORPUS = (
    Source("OpenStreetMap", "openstreetmap/openstreetmap-website", ("db/structure.sql",)),
    Source("iNaturalist", "inaturalist/inaturalist", ("db/structure.sql",)),
    Source("MusicBrainz", "metabrainz/musicbrainz-server", tuple(f"admin/sql/Create{part}.sql" for part in ("Types", "Tables", "PrimaryKeys", "Functions", "FKConstraints", "Indexes")), ROLES),
    Source("Synapse", "element-hq/synapse", tuple(f"synapse/storage/schema/{part}/full_schemas/72/full.sql.postgres" for part in ("common", "main", "state"))),
    Source("Temporal", "temporalio/temporal", ("schema/postgresql/v12/temporal/schema.sql", "schema/postgresql/v12/visibility/schema.sql")),
    Source("Lemmy", "LemmyNet/lemmy", ("migrations/*/up.sql",)),
    Source("crates.io", "rust-lang/crates.io", ("migrations/*/up.sql",)),
    Source("Concourse", "concourse/concourse", ("atc/db/migration/migrations/*.up.sql",)),
    Source("Umami", "umami-software/umami", ("prisma/migrations/*/migration.sql",)),
    Source("Roundcube", "roundcube/roundcubemail", ("SQL/postgres.initial.sql",)),
    Source("Pagila", "devrimgunduz/pagila", ("pagila-schema.sql",)),
    Source("Northwind", "pthom/northwind_psql", ("northwind.sql",)),
    Source("Chinook", "lerocha/chinook-database", ("ChinookDatabase/DataSources/Chinook_PostgreSql.sql",)),
)


def schema(source, clones):
    """The SQL of a schema, of the newest commit of its repository; None where it cannot be had."""
    git = clone(source.repository, clones)
    if git is None:
        return None
    listed = call(git, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    parts = [source.before]
    for pattern in source.files:
        expression = re.compile(re.escape(pattern).replace(r"\*", "[^/]*") + "$")
        parts += [call(git, "show", f"HEAD:{name}") for name in sorted(filter(expression.match, listed))]
    return "\n".join(harmless(part) for part in parts)


def clone(repository, clones):
    folder = clones / repository.replace("/", "+")
    for git in (folder / "repo", folder):
        if git.is_dir():
            return git
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["git", "clone", "--quiet", "--bare", "--depth", "1", f"https://github.com/{repository}", folder], stderr=subprocess.DEVNULL)
    return folder if done.returncode == 0 else None


def call(git, *words):
    done = subprocess.run(["git", "-C", git, "-c", "safe.directory=*", *words], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode(errors="replace")


def harmless(script):
    """Without psql's commands, which could leave the database or the machine's own files, nor statements about databases; one transaction that failed is not all."""
    lines = []
    for line in script.splitlines():
        word = line.strip().lower()
        if word.startswith("\\") and word != "\\." or re.match(r"(drop|create) database|(begin|commit)( transaction)?;|owner to |set (role|session)|copy .* (from|to) program", word):
            continue
        lines.append(line)
    return "\n".join(lines) + "\n;\n"
