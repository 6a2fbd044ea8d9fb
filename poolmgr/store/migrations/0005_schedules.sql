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
