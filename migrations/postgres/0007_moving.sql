-- Where an account is being moved to that holds no grant there yet: its next login in that realm ends the move. An older
-- gateway beside this one leaves the mark as it is; a mark of the realm that is in use counts for none.
ALTER TABLE accounts ADD COLUMN moving_to text COLLATE "C";
