//! Everything under a name, read and written as a whole, for moving between stores.

use sqlx::sqlite::SqliteConnection;

use super::grants::holder;
use super::{SqliteStore, store_error};
use crate::clock::Clock;
use crate::model::account::AccountName;
use crate::store::migrate::{AccountBundle, Migratable};
use crate::store::rows::{read_journal, read_login, signed, state_columns};
use crate::store::{AccountRecord, GrantRecord, JournalEntry, PendingLogin, StoreError, StoreFuture};

impl Migratable for SqliteStore {
    fn names(&self) -> StoreFuture<'_, Vec<AccountName>> {
        Box::pin(self.read_names())
    }

    fn bundle<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, AccountBundle> {
        Box::pin(self.read_bundle(name))
    }

    fn put_bundle<'a>(&'a self, bundle: &'a AccountBundle) -> StoreFuture<'a, ()> {
        Box::pin(self.write_bundle(bundle))
    }

    fn logins(&self) -> StoreFuture<'_, Vec<PendingLogin>> {
        Box::pin(self.read_logins())
    }
}

impl SqliteStore {
    async fn read_names(&self) -> Result<Vec<AccountName>, StoreError> {
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM accounts UNION SELECT account FROM generations UNION SELECT account FROM known_tokens \
             UNION SELECT account FROM journal ORDER BY 1",
        )
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        // A name that is not valid has been logged when the accounts were read.
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn read_bundle(&self, name: &AccountName) -> Result<AccountBundle, StoreError> {
        let account = self.read_account(name).await?;
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        let spent: Option<i64> = sqlx::query_scalar("SELECT last FROM generations WHERE account = ?")
            .bind(name.as_str())
            .fetch_optional(&mut *conn)
            .await
            .map_err(store_error)?;
        let hashes: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT hash FROM known_tokens WHERE account = ? ORDER BY hash")
                .bind(name.as_str())
                .fetch_all(&mut *conn)
                .await
                .map_err(store_error)?;
        Ok(AccountBundle {
            name: name.clone(),
            account,
            spent_generation: u64::try_from(spent.unwrap_or_default()).unwrap_or_default(),
            known_tokens: hashes.into_iter().filter_map(|hash| hash.try_into().ok()).collect(),
            journal: journal_of(&mut conn, name, &self.clock).await?,
        })
    }

    async fn write_bundle(&self, bundle: &AccountBundle) -> Result<(), StoreError> {
        let name = &bundle.name;
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        let there = journal_of(&mut tx, name, &self.clock).await?;
        let lines = bundle.lines_beyond(&there)?;
        for table in [
            "DELETE FROM grants WHERE account = ?",
            "DELETE FROM generations WHERE account = ?",
            "DELETE FROM known_tokens WHERE account = ?",
        ] {
            sqlx::query(table).bind(name.as_str()).execute(&mut *tx).await.map_err(store_error)?;
        }
        match &bundle.account {
            Some(account) => self.insert_account(&mut tx, account).await?,
            None => {
                let gone = sqlx::query("DELETE FROM accounts WHERE name = ?");
                gone.bind(name.as_str()).execute(&mut *tx).await.map_err(store_error)?;
            }
        }
        if bundle.spent_generation > 0 {
            let spent = sqlx::query("INSERT INTO generations (account, last) VALUES (?, ?)");
            let spent = spent.bind(name.as_str()).bind(signed(bundle.spent_generation));
            spent.execute(&mut *tx).await.map_err(store_error)?;
        }
        for hash in &bundle.known_tokens {
            sqlx::query("INSERT INTO known_tokens (hash, account) VALUES (?1, ?2) ON CONFLICT (hash) DO UPDATE SET account = ?2")
                .bind(&hash[..])
                .bind(name.as_str())
                .execute(&mut *tx)
                .await
                .map_err(store_error)?;
        }
        for line in lines {
            sqlx::query("INSERT INTO journal (at, account, event, detail) VALUES (?, ?, ?, ?)")
                .bind(self.stored(line.at))
                .bind(line.account.as_str())
                .bind(&*line.event)
                .bind(&*line.detail)
                .execute(&mut *tx)
                .await
                .map_err(store_error)?;
        }
        tx.commit().await.map_err(store_error)
    }

    async fn insert_account(
        &self,
        connection: &mut SqliteConnection,
        account: &AccountRecord,
    ) -> Result<(), StoreError> {
        let (word, since, why) = state_columns(&self.clock, &account.state);
        sqlx::query(
            "INSERT INTO accounts (name, current_realm, state, since, why) VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET \
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
        connection: &mut SqliteConnection,
        name: &AccountName,
        grant: &GrantRecord,
    ) -> Result<(), StoreError> {
        if let Some(held_by) = holder(connection, &grant.realm, grant.account_id, name).await? {
            return Err(StoreError::GrantTaken { realm: grant.realm.clone(), id: grant.account_id, held_by });
        }
        let route = grant.route.as_ref();
        sqlx::query(
            "INSERT INTO grants (account, realm, account_id, generation, refresh_sealed, access_sealed, access_expires_at, refreshed_at, \
             obtained_at, route_domain, route_path, route_discovered_at, intent_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        let rows =
            sqlx::query_as("SELECT id, kind, expires_at, payload_sealed FROM pending_logins ORDER BY id")
                .fetch_all(&mut *conn)
                .await
                .map_err(store_error)?;
        Ok(rows.into_iter().filter_map(|row| read_login(&self.keys, row)).collect())
    }
}

async fn journal_of(
    connection: &mut SqliteConnection,
    name: &AccountName,
    clock: &Clock,
) -> Result<Vec<JournalEntry>, StoreError> {
    let lines = sqlx::query("SELECT at, account, event, detail FROM journal WHERE account = ? ORDER BY id")
        .bind(name.as_str())
        .fetch_all(connection)
        .await
        .map_err(store_error)?;
    Ok(lines.iter().filter_map(|row| read_journal(row, clock).ok()).collect())
}
