-- The durable store in full: lines that wait, schedules, large contents in files, the lives of workers.

-- Each index is paid for by every task, and an index by state three times: when it is added, begun and ended. These two
-- took more than a third of the price of a task, for two lists that people look at. The lists now walk the tasks from
-- the newest (a million in 0.3 s); only the few that ended badly, which the dead letters are of, keep an index.
DROP INDEX tasks_by_state;
DROP INDEX tasks_by_name;
CREATE INDEX tasks_ended_badly ON tasks (state, id) WHERE state IN ('dead', 'cancelled', 'expired');

-- Tasks that wait are read in the order in which they run, a page at a time, and most of them never before that.
--
-- `priority` and `demand` name, with `name` and "group", the line that a task waits in. `held` says that it may not be
-- left to the store alone while it waits (core/shelf.py, is_plain); so does an attempt. Tasks from before this migration
-- are all held: what line they are in is in their packed options.
ALTER TABLE tasks ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN demand TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN held INTEGER NOT NULL DEFAULT 1;

-- Each task that is not final is in exactly one of these.
DROP INDEX tasks_unfinished;
CREATE INDEX tasks_in_hand ON tasks (position)
    WHERE ended_at IS NULL AND (held OR attempt > 0);
CREATE INDEX tasks_queued ON tasks (name, demand, priority, "group", position)
    WHERE ended_at IS NULL AND NOT held AND attempt = 0 AND state = 'queued';
CREATE INDEX tasks_scheduled ON tasks (due_at, position)
    WHERE ended_at IS NULL AND NOT held AND attempt = 0 AND state = 'scheduled';

-- A deduplication key that holds for a time after its task's submit; NULL where there is no such time.
ALTER TABLE tasks ADD COLUMN "key" TEXT;
ALTER TABLE tasks ADD COLUMN key_until REAL;
CREATE INDEX tasks_by_key_window ON tasks (key_until) WHERE key_until IS NOT NULL;

-- The largest id that was forgotten: whether a task of a smaller id, that is not there, was run cannot be told any more.
-- One from the future (its first 6 bytes are the time at which it was made, in ms) must not make all of the present old.
CREATE TABLE forgotten (last_id BLOB NOT NULL);
INSERT INTO forgotten VALUES (x'');
CREATE TRIGGER remember_forgotten AFTER DELETE ON tasks
    WHEN hex(substr(OLD.id, 1, 6)) <= printf('%012X', CAST((OLD.submitted_at + 1.0) * 1000 AS INTEGER))
BEGIN
    UPDATE forgotten SET last_id = OLD.id WHERE last_id < OLD.id;
END;

DROP VIEW task_records;
-- What a `TaskRecord` holds, in the order of its fields; and what it can be found by.
CREATE VIEW task_records AS
    SELECT tasks.id, name, coalesce(tasks.payload, long_payloads.payload), options, "group", position, state, submitted_at, due_at,
           attempt, failures, kills, interruptions, origin, ended_at, priority, demand, held
    FROM tasks LEFT JOIN long_payloads ON long_payloads.id = tasks.id;

-- Work that is done again and again. Times are wall times in seconds since 1970. A tick's task names its schedule in
-- `origin`: the text "schedule:" and the id, where a requeued task has the 16 bytes of the dead one.
CREATE TABLE schedules (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,  -- of the tasks
    payload    BLOB    NOT NULL,
    options    BLOB,              -- MessagePack, as a submit has them: those that differ from the handler's
    cron       TEXT,              -- either this
    every_s    REAL,              -- or this, counted from created_at
    timezone   TEXT    NOT NULL,
    missed     TEXT    NOT NULL,
    paused     INTEGER NOT NULL,
    created_at REAL    NOT NULL,
    last_tick  REAL    NOT NULL   -- up to this one all have had their turn
) WITHOUT ROWID;

-- A payload or outcome of more than 64 KB is in a file of the spool directory, which was synced before its row was
-- committed. It is NULL in `tasks`, and in neither of the long tables.
CREATE TABLE spool (
    id    BLOB    NOT NULL,
    kind  TEXT    NOT NULL,  -- 'payload' or 'outcome'
    file  TEXT    NOT NULL,  -- its name in the directory; no name is used twice
    bytes INTEGER NOT NULL,
    PRIMARY KEY (id, kind)
) WITHOUT ROWID;

-- The store unlinks the files of what it has forgotten, once that is committed.
CREATE TRIGGER forget_spooled AFTER DELETE ON tasks BEGIN
    DELETE FROM spool WHERE id = OLD.id;
END;

-- What results weigh, wherever they are: the limit on all of them is kept by an index alone.
ALTER TABLE tasks ADD COLUMN outcome_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE tasks SET outcome_bytes = coalesce(
    length(outcome), (SELECT length(long_outcomes.outcome) FROM long_outcomes WHERE long_outcomes.id = tasks.id), 0
) WHERE ended_at IS NOT NULL;
DROP INDEX tasks_by_expiry;
CREATE INDEX tasks_by_expiry ON tasks (expires_at, id, outcome_bytes) WHERE expires_at IS NOT NULL;

-- One row for each worker process that has ended; the last 1,000 are kept.
CREATE TABLE worker_lives (
    number         INTEGER NOT NULL PRIMARY KEY,  -- as they ended
    worker         TEXT    NOT NULL,
    incarnation    INTEGER NOT NULL,
    pid            INTEGER NOT NULL,
    spawned_at     REAL    NOT NULL,
    ended_at       REAL    NOT NULL,
    how            TEXT    NOT NULL,
    retired        TEXT    NOT NULL,
    executed       INTEGER NOT NULL,
    peak_memory_mb REAL    NOT NULL,
    epoch          INTEGER NOT NULL,
    UNIQUE (worker, epoch, incarnation)
);

CREATE TRIGGER forget_old_lives AFTER INSERT ON worker_lives BEGIN
    DELETE FROM worker_lives WHERE number <= NEW.number - 1000;
END;
