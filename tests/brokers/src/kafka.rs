//! Kafka with `rdkafka`.

use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use throughline::{Code, Context, Error};
use throughline_transport::{Consumer, MessageInfo, Outcome, Producer};

type Headers = Vec<(String, Vec<u8>)>;

fn kafka(error: KafkaError) -> Error {
    Error::wrap(Code::Unavailable, error)
}

fn to_kafka(headers: &Headers) -> OwnedHeaders {
    let add = |all: OwnedHeaders, (key, value): &(String, Vec<u8>)| all.insert(Header { key, value: Some(value) });
    headers.iter().fold(OwnedHeaders::new(), add)
}

fn from_kafka(message: &BorrowedMessage<'_>) -> Headers {
    let all = message.headers().into_iter().flat_map(|headers| headers.iter());
    all.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_owned())).collect()
}

/// Publishes to a topic, and waits until the broker has the message.
pub async fn publish(
    to: &FutureProducer,
    ctx: &Context,
    topic: &str,
    headers: Headers,
    body: &[u8],
) -> Result<(), Error> {
    let producer = Producer::new();
    let info = MessageInfo::new("kafka", topic.to_owned()).body_size(body.len() as u64);
    let send = async |headers: Headers| {
        let record = FutureRecord::<[u8], [u8]>::to(topic).payload(body).headers(to_kafka(&headers));
        let wait = ctx.remaining().unwrap_or(Duration::from_secs(5));
        to.send(record, wait).await.map(drop).map_err(|(error, _)| kafka(error))
    };
    producer.send(ctx, info, headers, send).await
}

/// Handles the messages of a consumer, one after the other, until `process` is done.
///
/// `enable.auto.commit` is off.
pub async fn consume(from: &StreamConsumer, letters: &FutureProducer, process: &Context) -> Result<(), Error> {
    let consumer = Consumer::new(process);
    while let Ok(message) = process.run(from.recv()).await {
        let message = message.map_err(kafka)?;
        let body = message.payload().unwrap_or_default();
        let mut headers = from_kafka(&message);
        let info = MessageInfo::new("kafka", message.topic().to_owned())
            .group("printer")
            .partition(message.partition().to_string())
            .id(message.offset().to_string());
        match consumer.handle_in_place(info, &headers, |ctx| print(ctx, body)).await {
            Outcome::Acknowledge => {}
            // The consumer stops. The offset is not committed, so another one gets the message.
            Outcome::Redeliver(_) => return Ok(()),
            Outcome::GiveUp(letter) => {
                letter.inject(&mut headers);
                if let Some(topic) = letter.destination() {
                    publish(letters, letter.context(), topic, headers, body).await?;
                }
            }
        }
        from.commit_message(&message, CommitMode::Async).map_err(kafka)?;
    }
    Ok(())
}

async fn print(_ctx: Context, order: &[u8]) -> Result<(), Error> {
    match order {
        [] => Err(Error::new(Code::InvalidArgument, "an order without items").with_retryable(false)),
        _ => Ok(()),
    }
}
