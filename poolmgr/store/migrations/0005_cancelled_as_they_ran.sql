-- A task that was cancelled as it ran does not run again, whatever becomes of its daemon.

ALTER TABLE tasks ADD COLUMN cancel_wanted INTEGER NOT NULL DEFAULT 0;

DROP VIEW task_records;
-- What a `TaskRecord` holds, in the order of its fields; and what it can be found by.
CREATE VIEW task_records AS
    SELECT tasks.id, name, coalesce(tasks.payload, long_payloads.payload), options, "group", position, state, submitted_at, due_at,
           attempt, failures, kills, interruptions, origin, cancel_wanted, ended_at, priority, demand, held
    FROM tasks LEFT JOIN long_payloads ON long_payloads.id = tasks.id;
