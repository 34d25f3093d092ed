-- Logins of applications wait here too: the code that is to be exchanged, and the login that may pair.
CREATE TABLE pending_logins_next (
    id             BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    kind           TEXT NOT NULL
                   CHECK (kind IN ('start', 'state', 'choice', 'application_code', 'application_login')),
    expires_at     INTEGER NOT NULL,
    payload_sealed BLOB NOT NULL
) STRICT;
INSERT INTO pending_logins_next SELECT id, kind, expires_at, payload_sealed FROM pending_logins;
DROP TABLE pending_logins;
ALTER TABLE pending_logins_next RENAME TO pending_logins;
CREATE INDEX pending_logins_by_expiry ON pending_logins (expires_at);

-- Which of two stores knows the newer grant of an application, when one is moved to the other. It grows with every grant and
-- every revocation.
ALTER TABLE application_grants ADD COLUMN generation INTEGER NOT NULL DEFAULT 1;
-- Where the application wants scan notifications.
ALTER TABLE application_grants ADD COLUMN callback_url_sealed BLOB;
CREATE TABLE revoked_application_grants (
    account    TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE ON UPDATE CASCADE,
    caller     TEXT NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (account, caller)
) STRICT, WITHOUT ROWID;
