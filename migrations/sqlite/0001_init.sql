-- Accounts, their grants, pending logins, the journal. What is secret stands in *_sealed columns: AES-256-GCM, the key lies elsewhere.
-- Moments are milliseconds since the Unix epoch. A migration that was released is never edited; the next one is added.

-- "gapi": says whose file this is, so that a foreign database is not built upon.
PRAGMA application_id = 1734439017;

-- One line per key in use: what unseals it is the right key.
CREATE TABLE seal_keys (
    key_id        TEXT NOT NULL PRIMARY KEY,
    canary_sealed BLOB NOT NULL
) STRICT;

CREATE TABLE accounts (
    name          TEXT NOT NULL PRIMARY KEY,
    current_realm TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('ready', 'paused', 'needs_login')),
    since         INTEGER,
    why           TEXT,
    CHECK ((state = 'needs_login') = (since IS NOT NULL)),
    CHECK ((state = 'needs_login') = (why IS NOT NULL))
) STRICT;

-- The id is text: the vendor prints it as a number and as a string, and does not say how large it gets.
CREATE TABLE grants (
    account             TEXT NOT NULL REFERENCES accounts (name),
    realm               TEXT NOT NULL,
    account_id          TEXT NOT NULL,
    generation          INTEGER NOT NULL CHECK (generation > 0),
    refresh_sealed      BLOB NOT NULL,
    access_sealed       BLOB,
    access_expires_at   INTEGER,
    refreshed_at        INTEGER,
    obtained_at         INTEGER NOT NULL,
    route_domain        TEXT,
    route_path          TEXT,
    route_discovered_at INTEGER,
    intent_at           INTEGER,
    PRIMARY KEY (account, realm),
    UNIQUE (realm, account_id),
    CHECK ((access_sealed IS NULL) = (access_expires_at IS NULL)),
    CHECK ((route_domain IS NULL) = (route_path IS NULL)),
    CHECK ((route_domain IS NULL) = (route_discovered_at IS NULL))
) STRICT;

-- How far an account's generations went before its grants were removed: they never start again.
CREATE TABLE generations (
    account TEXT NOT NULL PRIMARY KEY,
    last    INTEGER NOT NULL
) STRICT;

CREATE TABLE pending_logins (
    id             BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    kind           TEXT NOT NULL CHECK (kind IN ('start', 'state', 'choice')),
    expires_at     INTEGER NOT NULL,
    payload_sealed BLOB NOT NULL
) STRICT;
CREATE INDEX pending_logins_by_expiry ON pending_logins (expires_at);

CREATE TABLE journal (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    account TEXT NOT NULL,
    event   TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
CREATE INDEX journal_by_account ON journal (account, id);

-- Append-only, and bounded: the newest 500 lines of each account (three weeks of hourly refreshes) cannot be taken out.
CREATE TRIGGER journal_is_never_changed BEFORE UPDATE ON journal BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;
CREATE TRIGGER journal_keeps_its_newest BEFORE DELETE ON journal
WHEN NOT EXISTS (
    SELECT 1 FROM journal WHERE account = OLD.account AND id > OLD.id ORDER BY id LIMIT 1 OFFSET 499
) BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;
CREATE TRIGGER journal_is_bounded AFTER INSERT ON journal BEGIN
    DELETE FROM journal WHERE account = NEW.account AND id <= (
        SELECT id FROM journal WHERE account = NEW.account ORDER BY id DESC LIMIT 1 OFFSET 500
    );
END;

-- A row to write, for whoever asks whether the store takes writes.
CREATE TABLE heartbeat (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    at       INTEGER NOT NULL
) STRICT;
