-- SHA-256 of every refresh token with which an account was imported or paired: an application that refreshes by itself goes on
-- sending the one that it was given, however often the platform has rotated it since.
CREATE TABLE known_tokens (
    hash    BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    account TEXT NOT NULL
) STRICT;
CREATE INDEX known_tokens_by_account ON known_tokens (account);
