-- Lines that were moved from another store were written account by account, so over all accounts the time decides.
CREATE INDEX journal_by_time ON journal (at, id);
