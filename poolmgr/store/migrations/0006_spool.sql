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
