-- Accounts that exist to be tested with: load tests and drills call no others. A number as in the other store. An older gateway beside
-- this one leaves it as it is.
ALTER TABLE accounts ADD COLUMN is_test bigint NOT NULL DEFAULT 0 CHECK (is_test IN (0, 1));
