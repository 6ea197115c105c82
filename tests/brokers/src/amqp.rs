//! AMQP with `lapin`.

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use throughline::{Code, Context, Error};
use throughline_transport::{Consumer, MessageInfo, Outcome, Producer};

type Headers = Vec<(String, Vec<u8>)>;

fn amqp(error: lapin::Error) -> Error {
    Error::wrap(Code::Unavailable, error)
}

fn to_table(headers: Headers) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    table
}

fn from_table(table: &FieldTable) -> Headers {
    let text = |value: &AMQPValue| value.as_long_string().map(|text| text.as_bytes().to_vec());
    table.inner().iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
}

/// Publishes to a queue, and waits until the broker has the message.
///
/// The channel is in the confirm mode (`confirm_select`).
pub async fn publish(
    channel: &Channel,
    ctx: &Context,
    queue: &str,
    headers: Headers,
    body: &[u8],
) -> Result<(), Error> {
    let producer = Producer::new();
    let info = MessageInfo::new("rabbitmq", queue.to_owned()).body_size(body.len() as u64);
    let send = async |headers| {
        let properties = BasicProperties::default().with_headers(to_table(headers));
        let sent = channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, properties);
        sent.await.map_err(amqp)?.await.map_err(amqp)?;
        Ok::<(), Error>(())
    };
    producer.send(ctx, info, headers, send).await
}

/// Handles the messages of the queue `orders`, one after the other, until `process` is done.
pub async fn consume(channel: &Channel, process: &Context) -> Result<(), Error> {
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut messages = channel.basic_consume("orders".into(), "printer".into(), options, table).await.map_err(amqp)?;
    let consumer = Consumer::new(process);
    while let Ok(Some(message)) = process.run(messages.next()).await {
        let message = message.map_err(amqp)?;
        let mut headers = message.properties.headers().as_ref().map(from_table).unwrap_or_default();
        let info = MessageInfo::new("rabbitmq", "orders").body_size(message.data.len() as u64);
        match consumer.handle_in_place(info, &headers, |ctx| print(ctx, &message.data)).await {
            Outcome::Acknowledge => {}
            // The consumer stops. The broker gives the message to another one.
            Outcome::Redeliver(_) => return Ok(()),
            Outcome::GiveUp(letter) => {
                letter.inject(&mut headers);
                if let Some(queue) = letter.destination() {
                    publish(channel, letter.context(), queue, headers, &message.data).await?;
                }
            }
        }
        message.acker.ack(BasicAckOptions::default()).await.map_err(amqp)?;
    }
    Ok(())
}

async fn print(_ctx: Context, order: &[u8]) -> Result<(), Error> {
    match order {
        [] => Err(Error::new(Code::InvalidArgument, "an order without items").with_retryable(false)),
        _ => Ok(()),
    }
}
