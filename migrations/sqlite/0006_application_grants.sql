-- The gateway's own refresh tokens, one for each application and account, sealed. They mean nothing to the platform.
CREATE TABLE application_grants (
    account        TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE ON UPDATE CASCADE,
    caller         TEXT NOT NULL,
    refresh_sealed BLOB NOT NULL,
    PRIMARY KEY (account, caller)
) STRICT, WITHOUT ROWID;
