-- When what last happened to an account and to a caller, over all gateways. Written in batches every few seconds, never with a call.
-- Moments of 0: never.
CREATE TABLE last_seen (
    kind        text COLLATE "C" NOT NULL CHECK (kind IN ('account', 'caller')),
    name        text COLLATE "C" NOT NULL,
    call_at     bigint  NOT NULL DEFAULT 0,
    success_at  bigint  NOT NULL DEFAULT 0,
    refusal     integer NOT NULL DEFAULT 0,
    refusal_at  bigint  NOT NULL DEFAULT 0,
    list_links  integer NOT NULL DEFAULT 0,
    list_at     bigint  NOT NULL DEFAULT 0,
    download_at bigint  NOT NULL DEFAULT 0,
    noted_at    timestamptz NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE INDEX last_seen_by_time ON last_seen (noted_at);

CREATE FUNCTION forget_last_seen() RETURNS trigger LANGUAGE plpgsql SET search_path = genapi_gateway AS $$
BEGIN
    DELETE FROM last_seen WHERE kind = 'account' AND name = OLD.name;
    RETURN NULL;
END $$;
CREATE TRIGGER accounts_are_forgotten AFTER DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION forget_last_seen();
