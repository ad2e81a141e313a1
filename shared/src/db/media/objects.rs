//! What lies in storage. A key is made of what the bytes are, so that the same file is there once however many refer to it; the
//! row says that it may be there. It is written before the object and goes after it.
//!
//! Why no object goes that somebody refers to: who stores one touches its row first and holds it when the reference is written
//! down; who deletes marks the row first, having seen, with the row locked, that nobody refers to it. Who finds a mark waits for it
//! to be over, or stores the object once more.

use super::QUEUE;
use crate::{
    db::{error::Result, scope::FleetTx},
    domain::ids::TenantId,
    jobs::media::{MediaJob, Task},
};
use chrono::TimeDelta;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// So many objects are looked at in one transaction.
const AT_ONCE: i64 = 500;
/// So many are deleted by one job.
const IN_A_JOB: usize = 50;

/// Says that objects are about to be stored. `Some`: one of them is being deleted, for so long at most.
///
/// # Errors
/// If the database does not answer.
pub async fn touch(tx: &mut FleetTx, tenant_id: TenantId, keys: &[String]) -> Result<Option<TimeDelta>> {
    touch_on(tx.conn(), tenant_id, keys).await
}

/// As [`touch`].
pub(in crate::db) async fn touch_on(
    conn: &mut PgConnection,
    tenant_id: TenantId,
    keys: &[String],
) -> Result<Option<TimeDelta>> {
    // Looked at in an hour, when the reference to it has long been written down, if it ever is.
    let busy_s = sqlx::query_scalar!(
        r#"WITH touched AS (
            INSERT INTO media_objects AS o (tenant_id, key, check_at)
            SELECT $1, key, now() + interval '1 hour' FROM unnest($2::text[]) AS key ORDER BY key
            ON CONFLICT (tenant_id, key) DO UPDATE
                SET check_at = CASE WHEN o.deleting_until > now() THEN o.check_at ELSE excluded.check_at END,
                    deleting_until = CASE WHEN o.deleting_until > now() THEN o.deleting_until END
            RETURNING deleting_until
        )
        SELECT max(EXTRACT(epoch FROM deleting_until - now()))::float8 FROM touched"#,
        tenant_id.0,
        keys,
    )
    .fetch_one(conn)
    .await?;
    Ok(busy_s.map(|s| TimeDelta::milliseconds((s * 1000.0).ceil() as i64)))
}

/// Holds the rows of objects that are stored until the reference to them is committed. Whether all are there and stay.
pub(in crate::db) async fn hold(conn: &mut PgConnection, tenant_id: TenantId, keys: &[String]) -> Result<bool> {
    let there = sqlx::query_scalar!(
        "SELECT key FROM media_objects
        WHERE tenant_id = $1 AND key = ANY ($2) AND deleting_until IS NULL
        ORDER BY key
        FOR SHARE",
        tenant_id.0,
        keys,
    )
    .fetch_all(conn)
    .await?;
    Ok(keys.iter().all(|key| there.contains(key)))
}

/// Looks whether anybody refers to the objects that are to be looked at, and has those deleted to which nobody does. How many were
/// looked at; there may be more if as many as `AT_ONCE`.
///
/// # Errors
/// If the database does not answer.
pub async fn check(tx: &mut FleetTx) -> Result<(u64, bool)> {
    let due = sqlx::query!(
        r#"SELECT tenant_id AS "tenant_id: TenantId", key, now() AS "now!"
        FROM media_objects
        WHERE check_at <= now()
        ORDER BY check_at
        LIMIT $1
        FOR UPDATE SKIP LOCKED"#,
        AT_ONCE,
    )
    .fetch_all(tx.conn())
    .await?;
    let Some(now) = due.first().map(|row| row.now) else { return Ok((0, false)) };
    let tenants: Vec<Uuid> = due.iter().map(|row| row.tenant_id.0).collect();
    let keys: Vec<String> = due.iter().map(|row| row.key.clone()).collect();
    // A statement of its own: whoever held a row has committed, and is seen.
    let unused = sqlx::query!(
        r#"UPDATE media_objects o
        SET check_at = CASE WHEN due.used THEN NULL ELSE now() + interval '10 minutes' END,
            deleting_until = CASE WHEN due.used THEN NULL ELSE now() + interval '5 minutes' END
        FROM (
            SELECT d.tenant_id, d.key,
                EXISTS (SELECT FROM media WHERE tenant_id = d.tenant_id AND storage_key = d.key)
                OR EXISTS (SELECT FROM media WHERE tenant_id = d.tenant_id AND thumbnail_key = d.key)
                OR EXISTS (SELECT FROM contact_profiles WHERE tenant_id = d.tenant_id AND storage_key = d.key)
                OR EXISTS (SELECT FROM files WHERE tenant_id = d.tenant_id AND storage_key = d.key) AS used
            FROM unnest($1::uuid[], $2::text[]) AS d (tenant_id, key)
        ) AS due
        WHERE o.tenant_id = due.tenant_id AND o.key = due.key
        RETURNING o.tenant_id AS "tenant_id: TenantId", o.key, due.used AS "used!""#,
        &tenants,
        &keys,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut unused_by_tenant: BTreeMap<TenantId, Vec<String>> = BTreeMap::new();
    for row in unused.into_iter().filter(|row| !row.used) {
        unused_by_tenant.entry(row.tenant_id).or_default().push(row.key);
    }
    for (tenant_id, keys) in unused_by_tenant {
        for keys in keys.chunks(IN_A_JOB) {
            let job = MediaJob { tenant_id, task: Task::Delete { keys: keys.to_vec() } };
            tx.enqueue(tenant_id, QUEUE, job.to_job(now), None);
        }
    }
    Ok((due.len() as u64, due.len() as i64 >= AT_ONCE))
}

/// Which of these objects may be deleted within the next two minutes: nobody refers to them, and nobody will store them meanwhile.
/// They are given to one who asks: another would delete what is stored anew once the first has forgotten them.
///
/// # Errors
/// If the database does not answer.
pub async fn deletable(tx: &mut FleetTx, tenant_id: TenantId, keys: &[String]) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        "WITH mine AS MATERIALIZED (
            SELECT key
            FROM media_objects
            WHERE tenant_id = $1 AND key = ANY ($2) AND deleting_until > now() + interval '2 minutes'
            ORDER BY key
            FOR UPDATE
        )
        UPDATE media_objects o
        SET deleting_until = now() + interval '2 minutes'
        FROM mine
        WHERE o.tenant_id = $1 AND o.key = mine.key
        RETURNING o.key",
        tenant_id.0,
        keys,
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Forgets objects that are deleted.
///
/// # Errors
/// If the database does not answer.
pub async fn forget(tx: &mut FleetTx, tenant_id: TenantId, keys: &[String]) -> Result<()> {
    sqlx::query!(
        "DELETE FROM media_objects WHERE tenant_id = $1 AND key = ANY ($2) AND deleting_until IS NOT NULL",
        tenant_id.0,
        keys,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Lets go of files that may no longer be kept. How many; there may be more if as many as `AT_ONCE`.
///
/// # Errors
/// If the database does not answer.
pub async fn expire(tx: &mut FleetTx) -> Result<(u64, bool)> {
    let done = sqlx::query!(
        "WITH over AS MATERIALIZED (
            SELECT tenant_id, id
            FROM media
            WHERE state = 'stored' AND keep_until <= now()
            ORDER BY keep_until
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )
        UPDATE media m
        SET state = 'expired', code = 'kept_long_enough', reason = 'A story may be kept for 24 hours only.',
            storage_key = NULL, thumbnail_key = NULL
        FROM over
        WHERE m.tenant_id = over.tenant_id AND m.id = over.id",
        AT_ONCE,
    )
    .execute(tx.conn())
    .await?;
    let rows = done.rows_affected();
    Ok((rows, rows as i64 >= AT_ONCE))
}
