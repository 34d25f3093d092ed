-- Accounts that exist to be tested with: load tests and drills call no others.
ALTER TABLE accounts ADD COLUMN is_test INTEGER NOT NULL DEFAULT 0 CHECK (is_test IN (0, 1));
