-- Streams: the chunks that a handler has yielded, and what it can go on from.

-- One row for each task that has any. Those who read a stream are known to the daemon alone.
CREATE TABLE streams (
    id         BLOB    NOT NULL PRIMARY KEY,
    kept       INTEGER NOT NULL,  -- chunks 0 to kept - 1 were added
    dropped    INTEGER NOT NULL,  -- and those below are gone
    bytes      INTEGER NOT NULL,  -- what the others weigh
    first      INTEGER NOT NULL,  -- the number of the next chunk of a handler that goes on from
    checkpoint BLOB               -- this, or from its beginning
) WITHOUT ROWID;

CREATE TABLE chunks (
    id      BLOB    NOT NULL,
    seq     INTEGER NOT NULL,
    payload BLOB,                 -- NULL: it is in a file
    bytes   INTEGER NOT NULL,
    PRIMARY KEY (id, seq)
) WITHOUT ROWID;

-- Files of chunks have a number beside the task.
DROP TRIGGER forget_spooled;
ALTER TABLE spool RENAME TO old_spool;
CREATE TABLE spool (
    id    BLOB    NOT NULL,
    kind  TEXT    NOT NULL,  -- 'payload', 'outcome' or 'chunk'
    seq   INTEGER NOT NULL,  -- of a chunk; else 0
    file  TEXT    NOT NULL,  -- its name in the directory; no name is used twice
    bytes INTEGER NOT NULL,
    PRIMARY KEY (id, kind, seq)
) WITHOUT ROWID;
INSERT INTO spool SELECT id, kind, 0, file, bytes FROM old_spool;
DROP TABLE old_spool;
CREATE TRIGGER forget_spooled AFTER DELETE ON tasks BEGIN
    DELETE FROM spool WHERE id = OLD.id AND kind <> 'chunk';
END;

-- A stream may have as many chunks as all other tasks together have rows: its task is forgotten at once, they go some at
-- a time. Until they have, their stream is one of these.
CREATE TABLE forgotten_streams (id BLOB NOT NULL PRIMARY KEY) WITHOUT ROWID;
CREATE TRIGGER forget_stream AFTER DELETE ON tasks WHEN EXISTS (SELECT 1 FROM streams WHERE id = OLD.id) BEGIN
    DELETE FROM streams WHERE id = OLD.id;
    INSERT OR IGNORE INTO forgotten_streams VALUES (OLD.id);
END;
CREATE TRIGGER forget_chunk_file AFTER DELETE ON chunks WHEN OLD.payload IS NULL BEGIN
    DELETE FROM spool WHERE id = OLD.id AND kind = 'chunk' AND seq = OLD.seq;
END;

DROP VIEW task_infos;
-- What a `TaskInfo` holds, but for the attempts.
CREATE VIEW task_infos AS
    SELECT tasks.id, name, state, options, "group", attempt, failures, submitted_at, due_at, started_at, ended_at,
           worker, code, message, origin, requeued_as, streams.kept, streams.first, streams.checkpoint IS NOT NULL
    FROM tasks LEFT JOIN streams ON streams.id = tasks.id;
