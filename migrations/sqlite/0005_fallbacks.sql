-- Refresh tokens that may be the ones that live, beside those in use: tried before anybody is asked to log in.
CREATE TABLE fallbacks (
    id             INTEGER PRIMARY KEY,
    account        TEXT NOT NULL,
    realm          TEXT NOT NULL,
    refresh_sealed BLOB NOT NULL,
    kept_at        INTEGER NOT NULL,
    FOREIGN KEY (account, realm) REFERENCES grants (account, realm) ON DELETE CASCADE ON UPDATE CASCADE
) STRICT;
CREATE INDEX fallbacks_by_grant ON fallbacks (account, realm, id);

-- New tokens prove that the grant's own chain lives. Within the statement that brings them, so that a commit stays one statement.
CREATE TRIGGER fallbacks_are_forgotten AFTER UPDATE OF generation ON grants WHEN NEW.access_sealed IS NOT NULL BEGIN
    DELETE FROM fallbacks WHERE account = NEW.account AND realm = NEW.realm;
END;
