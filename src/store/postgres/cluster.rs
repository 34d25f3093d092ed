//! Leases, fallbacks, changes, leadership. Every moment here is the database's: replicas' clocks need not
//! agree.

use std::time::Duration;

use super::{PostgresStore, query, scalar, store_error};
use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName};
use crate::store::StoreError;
use crate::store::cluster::{Changes, Lease, ReplicaId};
use crate::store::rows::signed;
use crate::store::sql::SqlDatabase;
use crate::store::sql::accounts::missing;
use crate::store::sql::grants::generation;

impl PostgresStore {
    /// The grant's row is taken first: a commit under way is waited for, so that no lease is given for a
    /// generation that has passed. A lease that lasts longer than any that is given was noted before the
    /// database's clock was set back; nobody waits for it.
    pub(super) async fn claim(
        &self,
        name: &AccountName,
        realm: &RealmName,
        owner: &ReplicaId,
        seen_generation: u64,
        life: Duration,
    ) -> Result<Lease, StoreError> {
        let mut tx = self.pool.begin().await?;
        let Some(generation) = generation::<PostgresStore>(&mut tx, name, realm).await? else {
            let refusal = missing(&mut tx, name, realm).await?;
            tx.rollback().await?;
            return Err(refusal);
        };
        if generation != signed(seen_generation) {
            tx.rollback().await?;
            return Ok(Lease::Moved(u64::try_from(generation).unwrap_or_default()));
        }
        let taken = query(
            "INSERT INTO leases AS held (account, realm, owner, generation, ends_at) \
             VALUES ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 millisecond') \
             ON CONFLICT (account, realm) DO UPDATE SET owner = excluded.owner, generation = excluded.generation, ends_at = excluded.ends_at \
             WHERE held.owner = excluded.owner OR held.generation <> excluded.generation OR held.ends_at <= clock_timestamp() \
             OR held.ends_at > clock_timestamp() + 2 * $5 * interval '1 millisecond'",
        )
        .bind(name.as_str())
        .bind(realm.as_str())
        .bind(owner.as_str())
        .bind(generation)
        .bind(as_millis(life))
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        if taken.rows_affected() > 0 {
            tx.commit().await?;
            return Ok(Lease::Taken);
        }
        let (holder, remaining): (String, i64) = sqlx::query_as(
            "SELECT owner, greatest(0, ceil(extract(epoch FROM ends_at - clock_timestamp()) * 1000))::bigint \
             FROM leases WHERE account = $1 AND realm = $2",
        )
        .persistent(false)
        .bind(name.as_str())
        .bind(realm.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.rollback().await?;
        let remaining = Duration::from_millis(u64::try_from(remaining).unwrap_or_default());
        Ok(Lease::HeldBy { owner: ReplicaId::from_store(&holder), until: self.clock.now() + remaining })
    }

    pub(super) async fn extend(
        &self,
        name: &AccountName,
        realm: &RealmName,
        owner: &ReplicaId,
        life: Duration,
    ) -> Result<bool, StoreError> {
        let mut tx = self.pool.begin().await?;
        let extended = query(
            "UPDATE leases SET ends_at = clock_timestamp() + $4 * interval '1 millisecond' \
             WHERE account = $1 AND realm = $2 AND owner = $3",
        )
        .bind(name.as_str())
        .bind(realm.as_str())
        .bind(owner.as_str())
        .bind(as_millis(life))
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await?;
        Ok(extended.rows_affected() > 0)
    }

    pub(super) async fn release(
        &self,
        name: &AccountName,
        realm: &RealmName,
        owner: &ReplicaId,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        query("DELETE FROM leases WHERE account = $1 AND realm = $2 AND owner = $3")
            .bind(name.as_str())
            .bind(realm.as_str())
            .bind(owner.as_str())
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await
    }

    /// Whose lease runs, his is the intent, even where two clocks named the same moment.
    pub(super) async fn delete_intent(
        &self,
        name: &AccountName,
        realm: &RealmName,
        owner: &ReplicaId,
        expected: u64,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.pool.begin().await?;
        let changed = query(
            "UPDATE grants SET intent_at = NULL WHERE account = $1 AND realm = $2 AND generation = $3 AND intent_at = $4 \
             AND NOT EXISTS (SELECT 1 FROM leases WHERE account = $1 AND realm = $2 AND owner <> $5 AND ends_at > clock_timestamp())",
        )
        .bind(name.as_str())
        .bind(realm.as_str())
        .bind(signed(expected))
        .bind(SqlDatabase::stored(self, noted_at))
        .bind(owner.as_str())
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await?;
        Ok(changed.rows_affected() > 0)
    }

    /// One statement, one snapshot: what the counter says and what changed up to there belong together.
    pub(super) async fn read_changes(&self, seen: u64) -> Result<Changes, StoreError> {
        let mut tx = self.pool.begin().await?;
        let rows: Vec<(i64, Option<String>)> = sqlx::query_as(
            "SELECT counter.last, changes.account FROM change_counter counter \
             LEFT JOIN changes ON changes.seq > $1 ORDER BY changes.seq",
        )
        .persistent(false)
        .bind(signed(seen))
        .fetch_all(&mut *tx)
        .await
        .map_err(store_error)?;
        let newest = rows.first().map_or(0, |(last, _)| u64::try_from(*last).unwrap_or_default());
        let names: Vec<String> = if newest < seen {
            scalar("SELECT name FROM accounts UNION SELECT account FROM changes ORDER BY 1")
                .fetch_all(&mut *tx)
                .await
                .map_err(store_error)?
        } else {
            rows.into_iter().filter_map(|(_, account)| account).collect()
        };
        tx.commit().await?;
        // A name that is not valid has been logged when the accounts were read.
        Ok(Changes { accounts: names.iter().filter_map(|name| name.parse().ok()).collect(), newest })
    }

    pub(super) async fn read_newest_change(&self) -> Result<u64, StoreError> {
        let mut tx = self.pool.begin().await?;
        let newest: i64 =
            scalar("SELECT last FROM change_counter").fetch_one(&mut *tx).await.map_err(store_error)?;
        tx.commit().await?;
        Ok(u64::try_from(newest).unwrap_or_default())
    }

    pub(super) async fn take_lead(
        &self,
        task: &str,
        owner: &ReplicaId,
        life: Duration,
    ) -> Result<bool, StoreError> {
        let mut tx = self.pool.begin().await?;
        let taken = query(
            "INSERT INTO leaders AS leader (task, owner, ends_at) VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond') \
             ON CONFLICT (task) DO UPDATE SET owner = excluded.owner, ends_at = excluded.ends_at \
             WHERE leader.owner = excluded.owner OR leader.ends_at <= clock_timestamp() \
             OR leader.ends_at > clock_timestamp() + 2 * $3 * interval '1 millisecond'",
        )
        .bind(task)
        .bind(owner.as_str())
        .bind(as_millis(life))
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await?;
        Ok(taken.rows_affected() > 0)
    }

    pub(super) async fn leave_lead(&self, task: &str, owner: &ReplicaId) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        query("DELETE FROM leaders WHERE task = $1 AND owner = $2")
            .bind(task)
            .bind(owner.as_str())
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await
    }
}

fn as_millis(life: Duration) -> i64 {
    i64::try_from(life.as_millis()).unwrap_or(i64::MAX)
}
