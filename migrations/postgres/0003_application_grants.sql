-- The gateway's own refresh tokens, one for each application and account, sealed. They mean nothing to the platform.
-- ON UPDATE CASCADE is for an older gateway beside this one, which renames an account without knowing this table.
CREATE TABLE application_grants (
    account        text COLLATE "C" NOT NULL REFERENCES accounts (name) ON DELETE CASCADE ON UPDATE CASCADE,
    caller         text COLLATE "C" NOT NULL,
    refresh_sealed bytea NOT NULL,
    PRIMARY KEY (account, caller)
);
-- A value sealed anew is the same value.
CREATE CONSTRAINT TRIGGER application_grants_come_and_go AFTER INSERT OR DELETE ON application_grants
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
