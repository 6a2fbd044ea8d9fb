-- What an attempt that ended badly has left behind: MessagePack, a map of the fields of `PostMortem`; or NULL.
ALTER TABLE attempts ADD COLUMN post_mortem BLOB;

-- They are large, and a task may fail a thousand times: the last ten attempts keep theirs.
CREATE TRIGGER drop_old_post_mortems AFTER INSERT ON attempts WHEN NEW.attempt > 10 BEGIN
    UPDATE attempts SET post_mortem = NULL WHERE id = NEW.id AND attempt <= NEW.attempt - 10;
END;
