//! The management plugin, asked for what AMQP does not tell.

use super::{job, next, required, staged, to, until};
use secrecy::SecretString;
use shared::queue::{ALL, INBOUND, management::Management};

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_what_is_ready_and_what_is_out() {
    staged(async |stage| {
        let broker = stage.broker();
        let group = (0..5).map(|_| to(&INBOUND, job("x"))).collect();
        stage.publisher(&broker).await.publish(group).await.unwrap();
        let session = broker.session().await.unwrap();
        let mut consumer = session.consumer(&INBOUND, 2).await.unwrap();
        next(&mut consumer).await;
        let management = Management::new(&SecretString::from(required("AMQP_MANAGEMENT_URL"))).unwrap();
        until("it has sampled the queue", async || {
            let queues = management.queues(&broker).await.unwrap();
            assert_eq!(queues.len(), ALL.len());
            let inbound = queues.iter().find(|stats| stats.queue == &INBOUND).unwrap();
            (inbound.ready, inbound.unacked, inbound.consumers, inbound.dead) == (3, 2, 1, 0)
        })
        .await;
        session.close().await;
    })
    .await;
}
