-- Logins of applications wait here too: the code that is to be exchanged, and the login that may pair.
ALTER TABLE pending_logins DROP CONSTRAINT pending_logins_kind_check;
ALTER TABLE pending_logins ADD CONSTRAINT pending_logins_kind_check
    CHECK (kind IN ('start', 'state', 'choice', 'application_code', 'application_login'));

-- Which of two stores knows the newer grant of an application, when one is moved to the other. It grows with every grant and
-- every revocation. An older gateway beside this one writes grants of generation 1 and leaves no mark of a revocation.
ALTER TABLE application_grants ADD COLUMN generation bigint NOT NULL DEFAULT 1;
-- Where the application wants scan notifications.
ALTER TABLE application_grants ADD COLUMN callback_url_sealed bytea;
CREATE TABLE revoked_application_grants (
    account    text COLLATE "C" NOT NULL REFERENCES accounts (name) ON DELETE CASCADE ON UPDATE CASCADE,
    caller     text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    PRIMARY KEY (account, caller)
);
