-- Accounts, their grants, pending logins, the journal, and what several gateways agree upon. What is secret stands in *_sealed columns:
-- AES-256-GCM, the key lies elsewhere. Moments of ours are milliseconds since the Unix epoch; moments that several machines compare
-- are the database's own (timestamptz). A migration that was released is never edited; the next one is added.
--
-- Two versions of the gateway run side by side on one schema during an upgrade, so migrations only add: tables, columns with defaults,
-- indexes. What an older version still reads or leaves out of its INSERTs is taken away one release later, by a migration that says so
-- (`oldest_beside` in src/store/postgres/start.rs).

-- One line per key in use: what unseals it is the right key.
CREATE TABLE seal_keys (
    key_id        text  NOT NULL PRIMARY KEY,
    canary_sealed bytea NOT NULL
);

-- Collation "C": by bytes, as everybody else sorts names.
CREATE TABLE accounts (
    name          text COLLATE "C" NOT NULL PRIMARY KEY,
    current_realm text COLLATE "C" NOT NULL,
    state         text NOT NULL CHECK (state IN ('ready', 'paused', 'needs_login')),
    since         bigint,
    why           text,
    CHECK ((state = 'needs_login') = (since IS NOT NULL)),
    CHECK ((state = 'needs_login') = (why IS NOT NULL))
);

-- The id is text: the vendor prints it as a number and as a string, and does not say how large it gets.
-- `first_generation` is where this pairing began: what belongs to an earlier one is not mixed with it.
CREATE TABLE grants (
    account             text COLLATE "C" NOT NULL REFERENCES accounts (name),
    realm               text COLLATE "C" NOT NULL,
    account_id          text   NOT NULL,
    generation          bigint NOT NULL CHECK (generation > 0),
    first_generation    bigint NOT NULL,
    refresh_sealed      bytea  NOT NULL,
    access_sealed       bytea,
    access_expires_at   bigint,
    refreshed_at        bigint,
    obtained_at         bigint NOT NULL,
    route_domain        text,
    route_path          text,
    route_discovered_at bigint,
    intent_at           bigint,
    PRIMARY KEY (account, realm),
    UNIQUE (realm, account_id),
    CHECK ((access_sealed IS NULL) = (access_expires_at IS NULL)),
    CHECK ((route_domain IS NULL) = (route_path IS NULL)),
    CHECK ((route_domain IS NULL) = (route_discovered_at IS NULL))
);

-- Refresh tokens of replicas whose commit came too late: tried before an account is said to need a login.
CREATE TABLE fallbacks (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account        text COLLATE "C" NOT NULL,
    realm          text COLLATE "C" NOT NULL,
    refresh_sealed bytea  NOT NULL,
    kept_at        bigint NOT NULL,
    FOREIGN KEY (account, realm) REFERENCES grants (account, realm) ON DELETE CASCADE
);
CREATE INDEX fallbacks_by_grant ON fallbacks (account, realm, id);

-- How far an account's generations went before its grants were removed: they never start again.
CREATE TABLE generations (
    account text COLLATE "C" NOT NULL PRIMARY KEY,
    last    bigint NOT NULL
);

-- SHA-256 of every refresh token with which an account was imported or paired.
CREATE TABLE known_tokens (
    hash    bytea NOT NULL PRIMARY KEY CHECK (octet_length(hash) = 32),
    account text COLLATE "C" NOT NULL
);
CREATE INDEX known_tokens_by_account ON known_tokens (account);

CREATE TABLE pending_logins (
    id             bytea  NOT NULL PRIMARY KEY CHECK (octet_length(id) = 32),
    kind           text   NOT NULL CHECK (kind IN ('start', 'state', 'choice')),
    expires_at     bigint NOT NULL,
    payload_sealed bytea  NOT NULL
);
CREATE INDEX pending_logins_by_expiry ON pending_logins (expires_at);

CREATE TABLE journal (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      bigint NOT NULL,
    account text COLLATE "C" NOT NULL,
    event   text   NOT NULL,
    detail  text   NOT NULL
);
CREATE INDEX journal_by_account ON journal (account, id);
CREATE INDEX journal_by_time ON journal (at, id);

-- Append-only, and bounded: the newest 500 lines of each account (three weeks of hourly refreshes) cannot be taken out.
CREATE FUNCTION refuse_journal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the journal is append-only';
END $$;
CREATE FUNCTION keep_newest_journal() RETURNS trigger LANGUAGE plpgsql SET search_path = genapi_gateway AS $$
BEGIN
    PERFORM 1 FROM journal WHERE account = OLD.account AND id > OLD.id ORDER BY id LIMIT 1 OFFSET 499;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the journal is append-only';
    END IF;
    RETURN OLD;
END $$;
CREATE FUNCTION bound_journal() RETURNS trigger LANGUAGE plpgsql SET search_path = genapi_gateway AS $$
BEGIN
    DELETE FROM journal WHERE account = NEW.account AND id <= (
        SELECT id FROM journal WHERE account = NEW.account ORDER BY id DESC LIMIT 1 OFFSET 500
    );
    RETURN NULL;
END $$;
CREATE TRIGGER journal_is_never_changed BEFORE UPDATE ON journal FOR EACH ROW EXECUTE FUNCTION refuse_journal_change();
CREATE TRIGGER journal_keeps_its_newest BEFORE DELETE ON journal FOR EACH ROW EXECUTE FUNCTION keep_newest_journal();
CREATE TRIGGER journal_is_bounded AFTER INSERT ON journal FOR EACH ROW EXECUTE FUNCTION bound_journal();

-- A row to write, for whoever asks whether the store takes writes.
CREATE TABLE heartbeat (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    at       bigint NOT NULL
);

-- Who refreshes a grant right now. A lease for a generation that has passed holds nobody up.
CREATE TABLE leases (
    account    text COLLATE "C" NOT NULL,
    realm      text COLLATE "C" NOT NULL,
    owner      text        NOT NULL,
    generation bigint      NOT NULL,
    ends_at    timestamptz NOT NULL,
    PRIMARY KEY (account, realm),
    FOREIGN KEY (account, realm) REFERENCES grants (account, realm) ON DELETE CASCADE
);

-- Who does a background job for the whole cluster.
CREATE TABLE leaders (
    task    text        NOT NULL PRIMARY KEY,
    owner   text        NOT NULL,
    ends_at timestamptz NOT NULL
);

-- Which accounts changed, in the order of their commits. The counter is one row on purpose: whoever changes an account takes it until
-- its commit, so a reader that saw number N has seen everything up to N. A sequence would hand out numbers that are committed out of order.
CREATE TABLE change_counter (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    last     bigint NOT NULL
);
INSERT INTO change_counter VALUES (1, 0);
CREATE TABLE changes (
    account  text COLLATE "C" NOT NULL PRIMARY KEY,
    seq      bigint NOT NULL,
    noted_in xid8   NOT NULL
);
CREATE INDEX changes_by_seq ON changes (seq);

-- Deferred, so that it runs inside the commit: the counter is held while the database writes its log, never across a client's pause.
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql SET search_path = genapi_gateway AS $$
DECLARE
    changed text;
    now_at  bigint;
BEGIN
    IF TG_TABLE_NAME = 'accounts' THEN
        IF TG_OP = 'DELETE' THEN changed := OLD.name; ELSE changed := NEW.name; END IF;
    ELSE
        IF TG_OP = 'DELETE' THEN changed := OLD.account; ELSE changed := NEW.account; END IF;
    END IF;
    PERFORM 1 FROM changes WHERE account = changed AND noted_in = pg_current_xact_id();
    IF FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE change_counter SET last = last + 1 RETURNING last INTO now_at;
    INSERT INTO changes (account, seq, noted_in) VALUES (changed, now_at, pg_current_xact_id())
        ON CONFLICT (account) DO UPDATE SET seq = excluded.seq, noted_in = excluded.noted_in;
    PERFORM pg_notify('genapi_gateway', '');
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER accounts_come_and_go AFTER INSERT OR DELETE ON accounts
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
CREATE CONSTRAINT TRIGGER accounts_change AFTER UPDATE ON accounts
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD IS DISTINCT FROM NEW) EXECUTE FUNCTION note_change();
CREATE CONSTRAINT TRIGGER grants_come_and_go AFTER INSERT OR DELETE ON grants
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_change();
-- An intent is nobody else's business, and a value sealed anew is the same value.
CREATE CONSTRAINT TRIGGER grants_change AFTER UPDATE ON grants
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (
        OLD.generation IS DISTINCT FROM NEW.generation
        OR OLD.route_domain IS DISTINCT FROM NEW.route_domain
        OR OLD.route_path IS DISTINCT FROM NEW.route_path
    ) EXECUTE FUNCTION note_change();
