//! Everything under a name, read and written as a whole, for moving between stores.

use sqlx::postgres::PgConnection;

use super::queries::{holder, lock_account};
use super::{LONG, PostgresStore, SHORT, query, scalar, store_error, within};
use crate::clock::Clock;
use crate::model::account::AccountName;
use crate::store::migrate::{AccountBundle, Migratable};
use crate::store::rows::{read_journal, read_login, signed, state_columns, stored};
use crate::store::{AccountRecord, GrantRecord, JournalEntry, PendingLogin, StoreError, StoreFuture};

impl Migratable for PostgresStore {
    fn names(&self) -> StoreFuture<'_, Vec<AccountName>> {
        Box::pin(within(LONG, self.read_names()))
    }

    fn bundle<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, AccountBundle> {
        Box::pin(within(SHORT, self.read_bundle(name)))
    }

    fn put_bundle<'a>(&'a self, bundle: &'a AccountBundle) -> StoreFuture<'a, ()> {
        Box::pin(within(SHORT, self.write_bundle(bundle)))
    }

    fn logins(&self) -> StoreFuture<'_, Vec<PendingLogin>> {
        Box::pin(within(LONG, self.read_logins()))
    }
}

impl PostgresStore {
    async fn read_names(&self) -> Result<Vec<AccountName>, StoreError> {
        let mut tx = self.pool.begin_long().await?;
        let names: Vec<String> = scalar(
            "SELECT name FROM accounts UNION SELECT account FROM generations UNION SELECT account FROM known_tokens \
             UNION SELECT account FROM journal ORDER BY 1",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await?;
        // A name that is not valid has been logged when the accounts were read.
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn read_bundle(&self, name: &AccountName) -> Result<AccountBundle, StoreError> {
        let mut tx = self.pool.begin().await?;
        let account = self.find_account(&mut tx, name).await?;
        let spent: Option<i64> = scalar("SELECT last FROM generations WHERE account = $1")
            .bind(name.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(store_error)?;
        let hashes: Vec<Vec<u8>> = scalar("SELECT hash FROM known_tokens WHERE account = $1 ORDER BY hash")
            .bind(name.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(store_error)?;
        let journal = journal_of(&mut tx, name, &self.clock).await?;
        tx.commit().await?;
        Ok(AccountBundle {
            name: name.clone(),
            account,
            spent_generation: u64::try_from(spent.unwrap_or_default()).unwrap_or_default(),
            known_tokens: hashes.into_iter().filter_map(|hash| hash.try_into().ok()).collect(),
            journal,
        })
    }

    async fn write_bundle(&self, bundle: &AccountBundle) -> Result<(), StoreError> {
        let name = &bundle.name;
        let mut tx = self.pool.begin().await?;
        lock_account(&mut tx, name).await?;
        let there = journal_of(&mut tx, name, &self.clock).await?;
        let lines = bundle.lines_beyond(&there)?;
        for sql in [
            "DELETE FROM grants WHERE account = $1",
            "DELETE FROM generations WHERE account = $1",
            "DELETE FROM known_tokens WHERE account = $1",
        ] {
            query(sql).bind(name.as_str()).execute(&mut *tx).await.map_err(store_error)?;
        }
        match &bundle.account {
            Some(account) => self.insert_account(&mut tx, account).await?,
            None => {
                let gone = query("DELETE FROM accounts WHERE name = $1").bind(name.as_str());
                gone.execute(&mut *tx).await.map_err(store_error)?;
            }
        }
        if bundle.spent_generation > 0 {
            query("INSERT INTO generations (account, last) VALUES ($1, $2)")
                .bind(name.as_str())
                .bind(signed(bundle.spent_generation))
                .execute(&mut *tx)
                .await
                .map_err(store_error)?;
        }
        query(
            "INSERT INTO known_tokens (hash, account) SELECT hash, $1 FROM unnest($2::bytea[]) AS hash \
             ON CONFLICT (hash) DO UPDATE SET account = excluded.account",
        )
        .bind(name.as_str())
        .bind(bundle.known_tokens.iter().map(|hash| hash.to_vec()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        append(&mut tx, name, lines, &self.clock).await?;
        tx.commit().await
    }

    async fn insert_account(
        &self,
        connection: &mut PgConnection,
        account: &AccountRecord,
    ) -> Result<(), StoreError> {
        let (word, since, why) = state_columns(&self.clock, &account.state);
        query(
            "INSERT INTO accounts (name, current_realm, state, since, why) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET \
             current_realm = excluded.current_realm, state = excluded.state, since = excluded.since, why = excluded.why",
        )
        .bind(account.name.as_str())
        .bind(account.current.as_str())
        .bind(word)
        .bind(since)
        .bind(why)
        .execute(&mut *connection)
        .await
        .map_err(store_error)?;
        for grant in &account.grants {
            self.insert_grant(connection, &account.name, grant).await?;
        }
        Ok(())
    }

    pub(super) async fn insert_grant(
        &self,
        connection: &mut PgConnection,
        name: &AccountName,
        grant: &GrantRecord,
    ) -> Result<(), StoreError> {
        if let Some(held_by) = holder(connection, &grant.realm, grant.account_id, name).await? {
            return Err(StoreError::GrantTaken { realm: grant.realm.clone(), id: grant.account_id, held_by });
        }
        let route = grant.route.as_ref();
        query(
            "INSERT INTO grants (account, realm, account_id, generation, first_generation, refresh_sealed, access_sealed, access_expires_at, \
             refreshed_at, obtained_at, route_domain, route_path, route_discovered_at, intent_at) \
             VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(name.as_str())
        .bind(grant.realm.as_str())
        .bind(grant.account_id.to_string())
        .bind(signed(grant.generation))
        .bind(self.sealed_refresh(name, &grant.realm, &grant.refresh)?)
        .bind(self.sealed_access(name, &grant.realm, grant.access.as_ref())?)
        .bind(grant.access.as_ref().map(|access| self.stored(access.expires_at)))
        .bind(grant.refreshed_at.map(|at| self.stored(at)))
        .bind(self.stored(grant.obtained_at))
        .bind(route.map(|route| &*route.domain))
        .bind(route.map(|route| &*route.path))
        .bind(route.map(|route| self.stored(route.discovered_at)))
        .bind(grant.intent.map(|at| self.stored(at)))
        .execute(connection)
        .await
        .map_err(store_error)?;
        Ok(())
    }

    pub(super) async fn read_logins(&self) -> Result<Vec<PendingLogin>, StoreError> {
        let mut tx = self.pool.begin_long().await?;
        let rows =
            sqlx::query_as("SELECT id, kind, expires_at, payload_sealed FROM pending_logins ORDER BY id")
                .persistent(false)
                .fetch_all(&mut *tx)
                .await
                .map_err(store_error)?;
        tx.commit().await?;
        Ok(rows.into_iter().filter_map(|row| read_login(&self.keys, row)).collect())
    }
}

async fn journal_of(
    connection: &mut PgConnection,
    name: &AccountName,
    clock: &Clock,
) -> Result<Vec<JournalEntry>, StoreError> {
    let lines = query("SELECT at, account, event, detail FROM journal WHERE account = $1 ORDER BY id")
        .bind(name.as_str())
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    Ok(lines.iter().filter_map(|row| read_journal(row, clock).ok()).collect())
}

/// In one statement: an account's past is up to 500 lines.
async fn append(
    connection: &mut PgConnection,
    name: &AccountName,
    lines: &[JournalEntry],
    clock: &Clock,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO journal (at, account, event, detail) SELECT line.at, $1, line.event, line.detail \
         FROM unnest($2::bigint[], $3::text[], $4::text[]) WITH ORDINALITY AS line (at, event, detail, number) ORDER BY line.number",
    )
    .bind(name.as_str())
    .bind(lines.iter().map(|line| stored(clock, line.at)).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.event.clone()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.detail.clone()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map_err(store_error)?;
    Ok(())
}
