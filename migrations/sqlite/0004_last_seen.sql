-- When what last happened to an account and to a caller. Written in batches every few seconds, never with a call. Moments of 0: never.
CREATE TABLE last_seen (
    kind        TEXT NOT NULL CHECK (kind IN ('account', 'caller')),
    name        TEXT NOT NULL,
    call_at     INTEGER NOT NULL DEFAULT 0,
    success_at  INTEGER NOT NULL DEFAULT 0,
    refusal     INTEGER NOT NULL DEFAULT 0,
    refusal_at  INTEGER NOT NULL DEFAULT 0,
    list_links  INTEGER NOT NULL DEFAULT 0,
    list_at     INTEGER NOT NULL DEFAULT 0,
    download_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER accounts_are_forgotten AFTER DELETE ON accounts BEGIN
    DELETE FROM last_seen WHERE kind = 'account' AND name = OLD.name;
END;
