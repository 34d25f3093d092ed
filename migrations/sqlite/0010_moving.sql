-- Where an account is being moved to that holds no grant there yet: its next login in that realm ends the move.
ALTER TABLE accounts ADD COLUMN moving_to TEXT;
