-- The first schema. A migration is never changed once it has been released: the next change is the next number.
--
-- Ids are the tasks' 16 bytes; they sort by age, so every insert is at the right edge of its tree. That, and that
-- nearly every question is "the task of this id", is why the tables have no rowid. Times are wall times in seconds
-- since 1970. A task is final when it has an `ended_at`.

PRAGMA application_id = 0x706d6772;  -- "pmgr": tells our files from those of other programs

-- Small rows: a change of state rewrites its row, and lists read many. So only a short payload or outcome is here
-- (most are, and each saves an insert elsewhere); a long one is NULL here and in a table of its own.
CREATE TABLE tasks (
    id            BLOB    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    "group"       TEXT    NOT NULL,
    position      INTEGER NOT NULL,  -- first in, first out within a group
    options       BLOB    NOT NULL,  -- MessagePack: those that differ from their defaults
    state         TEXT    NOT NULL,
    submitted_at  REAL    NOT NULL,
    due_at        REAL,
    started_at    REAL,
    ended_at      REAL,
    attempt       INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    kills         INTEGER NOT NULL,
    interruptions INTEGER NOT NULL,
    worker        TEXT,
    code          TEXT    NOT NULL DEFAULT '',
    message       TEXT    NOT NULL DEFAULT '',
    expires_at    REAL,
    origin        BLOB,
    requeued_as   BLOB,
    payload       BLOB,
    outcome       BLOB
) WITHOUT ROWID;

CREATE INDEX tasks_by_state ON tasks (state, id);
CREATE INDEX tasks_by_name ON tasks (name, id);
CREATE INDEX tasks_unfinished ON tasks (position, id) WHERE ended_at IS NULL;
CREATE INDEX tasks_by_expiry ON tasks (expires_at, id) WHERE expires_at IS NOT NULL;

CREATE TABLE long_payloads (
    id      BLOB NOT NULL PRIMARY KEY,
    payload BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE long_outcomes (
    id      BLOB NOT NULL PRIMARY KEY,
    outcome BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE attempts (
    id         BLOB    NOT NULL,
    attempt    INTEGER NOT NULL,
    worker     TEXT    NOT NULL,
    started_at REAL    NOT NULL,
    ended_at   REAL    NOT NULL,
    cause      TEXT    NOT NULL,
    type       TEXT    NOT NULL,
    message    TEXT    NOT NULL,
    traceback  TEXT    NOT NULL,
    PRIMARY KEY (id, attempt)
) WITHOUT ROWID;

-- A task is forgotten with its whole history, whoever deletes it.
CREATE TRIGGER forget_history AFTER DELETE ON tasks BEGIN
    DELETE FROM long_payloads WHERE id = OLD.id;
    DELETE FROM long_outcomes WHERE id = OLD.id;
    DELETE FROM attempts WHERE id = OLD.id;
END;

CREATE TABLE epochs (
    number     INTEGER NOT NULL PRIMARY KEY,
    started_at REAL    NOT NULL
);

-- What a `TaskRecord` holds, in the order of its fields; and `ended_at`, to ask for the unfinished ones.
CREATE VIEW task_records AS
    SELECT tasks.id, name, coalesce(tasks.payload, long_payloads.payload), options, "group", position, state, submitted_at, due_at,
           attempt, failures, kills, interruptions, origin, ended_at
    FROM tasks LEFT JOIN long_payloads ON long_payloads.id = tasks.id;

-- What a `TaskInfo` holds, but for the attempts.
CREATE VIEW task_infos AS
    SELECT id, name, state, options, "group", attempt, failures, submitted_at, due_at, started_at, ended_at,
           worker, code, message, origin, requeued_as
    FROM tasks;
