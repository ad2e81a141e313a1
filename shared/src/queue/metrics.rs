//! The names of this layer's metrics.

/// Counter, by `queue`: jobs the broker has confirmed.
pub const PUBLISHED_TOTAL: &str = "mijra_published_total";
/// Histogram: seconds from asking to publish until all was confirmed, a group at a time.
pub const PUBLISH_SECONDS: &str = "mijra_publish_seconds";
/// Counter, by `reason` (unavailable, unconfirmed, unroutable): groups that were not confirmed.
pub const PUBLISH_FAILURES_TOTAL: &str = "mijra_publish_failures_total";
/// Histogram: webhooks in a bundle.
pub const BUNDLE_WEBHOOKS: &str = "mijra_bundle_webhooks";
/// Counter, by `outcome` (confirmed, spilled, refused): webhooks the receiver handed over.
pub const BUNDLED_TOTAL: &str = "mijra_bundled_webhooks_total";
/// Gauge, by `role` (publish, consume): 1 while there is a usable connection.
pub const BROKER_CONNECTED: &str = "mijra_broker_connected";
