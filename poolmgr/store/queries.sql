-- Every statement of the SQLite store, by name. ?, or ?1, ?2, ..., are what rows.py makes of a change.
-- A statement that applies a change can be applied twice: it ignores what is known, and leaves final tasks alone.
-- Where it says VALUES (?, ...), it is also used with many rows there (schema.py: in_blocks); what is numbered is the same
-- in all of them.

-- name: add_task
INSERT OR IGNORE INTO tasks
    (name, "group", options, priority, demand, held, "key", kills, interruptions, origin, state, attempt, failures,
     id, position, submitted_at, due_at, key_until, payload)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?, ?, ?, ?, ?, ?);

-- add_task and end_task in one. The task may be known by then, and may even have ended.
-- name: add_short_life
INSERT INTO tasks
    (name, "group", options, priority, demand, held, "key", kills, interruptions, origin, state, attempt, failures,
     code, message, id, position, submitted_at, due_at, key_until, payload, ended_at, started_at, worker, expires_at,
     outcome, outcome_bytes)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET state = excluded.state, ended_at = excluded.ended_at, started_at = excluded.started_at,
    attempt = excluded.attempt, failures = excluded.failures, worker = excluded.worker, code = excluded.code,
    message = excluded.message, expires_at = excluded.expires_at, outcome = excluded.outcome,
    outcome_bytes = excluded.outcome_bytes
WHERE tasks.ended_at IS NULL;

-- Goes before add_task, which makes the task known and so closes this door.
-- name: add_long_payload
INSERT OR IGNORE INTO long_payloads (id, payload)
SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE id = ?1);

-- name: move_task
WITH new (id, state, due_at, attempt, failures, kills, interruptions, cancel_wanted) AS
    (VALUES (?, ?, ?, ?, ?, ?, ?, ?))
UPDATE tasks
SET state = new.state, due_at = new.due_at, attempt = new.attempt, failures = new.failures, kills = new.kills,
    interruptions = new.interruptions, cancel_wanted = new.cancel_wanted
FROM new WHERE tasks.id = new.id AND tasks.ended_at IS NULL;

-- name: add_attempt
INSERT OR IGNORE INTO attempts (id, attempt, worker, started_at, ended_at, cause, type, message, traceback, post_mortem)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 WHERE EXISTS (SELECT 1 FROM tasks WHERE id = ?1);

-- Goes before end_task, which makes the task final and so closes this door.
-- name: add_long_outcome
INSERT OR IGNORE INTO long_outcomes (id, outcome)
SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM tasks WHERE id = ?1 AND ended_at IS NULL);

-- name: end_task
WITH new (state, attempt, failures, code, message, id, ended_at, started_at, worker, expires_at, outcome,
          outcome_bytes) AS
    (VALUES (?1, ?2, ?3, ?4, ?5, ?, ?, ?, ?, ?, ?, ?))
UPDATE tasks
SET state = new.state, ended_at = new.ended_at, started_at = new.started_at, attempt = new.attempt,
    failures = new.failures, worker = new.worker, code = new.code, message = new.message,
    expires_at = new.expires_at, outcome = new.outcome, outcome_bytes = new.outcome_bytes
FROM new WHERE tasks.id = new.id AND tasks.ended_at IS NULL;

-- name: link_requeued
UPDATE tasks SET requeued_as = ?2 WHERE id = ?1;

-- name: purge_task
DELETE FROM tasks WHERE id = ?1 AND ended_at IS NOT NULL;

-- name: set_schedule
INSERT OR REPLACE INTO schedules
    (id, name, payload, options, cron, every_s, timezone, missed, paused, created_at, last_tick)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: tick_schedule
UPDATE schedules SET last_tick = ?2 WHERE id = ?1;

-- name: remove_schedule
DELETE FROM schedules WHERE id = ?1;

-- name: first_to_expire
SELECT expires_at, id, outcome_bytes FROM tasks WHERE expires_at <= ?1 ORDER BY expires_at, id LIMIT ?2;

-- name: forget_until
DELETE FROM tasks WHERE expires_at <= ?1 AND (expires_at, id) <= (?1, ?2);

-- name: first_to_spare
SELECT id, outcome_bytes FROM tasks
WHERE expires_at IS NOT NULL AND (key_until IS NULL OR key_until <= ?1) ORDER BY expires_at, id LIMIT ?2;

-- name: results_bytes
SELECT coalesce(sum(outcome_bytes), 0) FROM tasks WHERE expires_at IS NOT NULL;

-- Goes before add_task.
-- name: awaits_payload
SELECT NOT EXISTS (SELECT 1 FROM tasks WHERE id = ?1);

-- Goes before end_task.
-- name: awaits_outcome
SELECT EXISTS (SELECT 1 FROM tasks WHERE id = ?1 AND ended_at IS NULL);

-- name: add_spooled
INSERT INTO spool (id, kind, seq, file, bytes) VALUES (?1, ?2, ?3, ?4, ?5);

-- name: spooled
SELECT id, kind, seq, file, bytes FROM spool;

-- name: spooled_of
SELECT file, bytes FROM spool WHERE id = ?1 AND kind = ?2 AND seq = ?3;

-- Of a task that is not final; no row for any other.
-- name: growing_stream
SELECT coalesce(kept, 0), coalesce(dropped, 0), coalesce(bytes, 0), coalesce(first, 0), NULL
FROM tasks LEFT JOIN streams ON streams.id = tasks.id WHERE tasks.id = ?1 AND ended_at IS NULL;

-- A checkpoint may be large, and stays where it is until there is another: rows are overwritten, and only what differs.
-- name: set_stream
INSERT INTO streams (id, kept, dropped, bytes, first, checkpoint) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (id) DO UPDATE SET kept = excluded.kept, dropped = excluded.dropped, bytes = excluded.bytes,
    first = excluded.first, checkpoint = coalesce(excluded.checkpoint, checkpoint);

-- name: add_chunk
INSERT INTO chunks (id, seq, payload, bytes) VALUES (?1, ?2, ?3, ?4);

-- name: drop_chunks
DELETE FROM chunks WHERE id = ?1 AND seq >= ?2 AND seq < ?3;

-- name: bytes_of_chunks
SELECT coalesce(sum(bytes), 0) FROM chunks WHERE id = ?1 AND seq >= ?2 AND seq < ?3;

-- name: a_forgotten_stream
SELECT id FROM forgotten_streams LIMIT 1;

-- name: first_chunks
SELECT max(seq) FROM (SELECT seq FROM chunks WHERE id = ?1 ORDER BY seq LIMIT ?2);

-- name: stream_is_gone
DELETE FROM forgotten_streams WHERE id = ?1;

-- name: streams
SELECT streams.id, kept, dropped, bytes, first, checkpoint
FROM streams CROSS JOIN tasks ON tasks.id = streams.id WHERE ended_at IS NULL;

-- name: stream
SELECT coalesce(kept, 0), coalesce(dropped, 0), ended_at IS NOT NULL
FROM tasks LEFT JOIN streams ON streams.id = tasks.id WHERE tasks.id = ?1;

-- name: chunks
SELECT seq, payload FROM chunks WHERE id = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3;

-- name: add_life
INSERT OR IGNORE INTO worker_lives
    (worker, incarnation, pid, spawned_at, ended_at, how, retired, executed, peak_memory_mb, epoch)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, max(number) FROM epochs;

-- name: lives
SELECT worker, incarnation, pid, spawned_at, ended_at, how, retired, executed, peak_memory_mb, epoch
FROM worker_lives WHERE worker = coalesce(?1, worker) ORDER BY number DESC LIMIT ?2;

-- name: begin_epoch
INSERT INTO epochs (number, started_at) SELECT coalesce(max(number), 0) + 1, ?1 FROM epochs;

-- name: last_epoch
SELECT max(number) FROM epochs;

-- In pages, so that reading many tasks neither holds them all nor keeps a snapshot of the log open.
-- name: in_hand_page
SELECT * FROM task_records
WHERE ended_at IS NULL AND (held OR attempt > 0) AND (position, id) > (?1, ?2)
ORDER BY position, id LIMIT ?3;

-- name: queued_page
SELECT * FROM task_records
WHERE ended_at IS NULL AND NOT held AND attempt = 0 AND state = 'queued'
  AND name = ?1 AND demand = ?2 AND priority = ?3 AND "group" = ?4 AND position > ?5
ORDER BY position LIMIT ?6;

-- name: scheduled_page
SELECT * FROM task_records
WHERE ended_at IS NULL AND NOT held AND attempt = 0 AND state = 'scheduled' AND (due_at, position) > (?1, ?2)
ORDER BY due_at, position LIMIT ?3;

-- name: queued_sizes
SELECT name, demand, priority, "group", count(*), max(position) FROM tasks
WHERE ended_at IS NULL AND NOT held AND attempt = 0 AND state = 'queued'
GROUP BY name, demand, priority, "group";

-- name: scheduled_size
SELECT count(*), coalesce(max(position), 0) FROM tasks
WHERE ended_at IS NULL AND NOT held AND attempt = 0 AND state = 'scheduled';

-- name: keys
SELECT "key", id, key_until FROM tasks WHERE key_until > ?1 AND ended_at IS NOT NULL;

-- name: last_id
SELECT coalesce(max(id), x'') FROM tasks WHERE id <= ?1;

-- name: forgotten
SELECT last_id FROM forgotten;

-- name: ids_beyond
SELECT id FROM tasks WHERE id > ?1 ORDER BY id LIMIT ?2;

-- name: record
SELECT * FROM task_records WHERE id = ?1;

-- name: task
SELECT * FROM task_infos WHERE id = ?1;

-- name: attempts
SELECT attempt, worker, started_at, ended_at, cause, type, message, traceback, post_mortem
FROM attempts WHERE id = ?1 ORDER BY attempt;

-- name: outcome
SELECT state, code, coalesce(tasks.outcome, long_outcomes.outcome)
FROM tasks LEFT JOIN long_outcomes ON long_outcomes.id = tasks.id
WHERE tasks.id = ?1 AND ended_at IS NOT NULL;

-- Newest first, walked by id; ?3 and ?4 are a state and a name, or NULL for any.
-- name: tasks
SELECT * FROM task_infos
WHERE id < ?1 AND (?3 IS NULL OR state = ?3) AND (?4 IS NULL OR name = ?4)
ORDER BY id DESC LIMIT ?2;

-- The same for a state that has an index. Its second mention is what tells SQLite so.
-- name: tasks_ended_badly
SELECT * FROM task_infos
WHERE id < ?1 AND state = ?3 AND state IN ('dead', 'cancelled', 'expired') AND (?4 IS NULL OR name = ?4)
ORDER BY id DESC LIMIT ?2;

-- name: counts
SELECT state, count(*) FROM tasks GROUP BY state;

-- name: schedules
SELECT id, name, payload, options, cron, every_s, timezone, missed, paused, created_at, last_tick
FROM schedules ORDER BY id;
