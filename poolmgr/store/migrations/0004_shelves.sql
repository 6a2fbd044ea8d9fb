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
    WHEN hex(substr(OLD.id, 1, 6)) <= printf('%012X', CAST((OLD.submitted_at + 60.0) * 1000 AS INTEGER))
BEGIN
    UPDATE forgotten SET last_id = OLD.id WHERE last_id < OLD.id;
END;

DROP VIEW task_records;
-- What a `TaskRecord` holds, in the order of its fields; and what it can be found by.
CREATE VIEW task_records AS
    SELECT tasks.id, name, coalesce(tasks.payload, long_payloads.payload), options, "group", position, state, submitted_at, due_at,
           attempt, failures, kills, interruptions, origin, ended_at, priority, demand, held
    FROM tasks LEFT JOIN long_payloads ON long_payloads.id = tasks.id;
