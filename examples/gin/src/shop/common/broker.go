package common

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const exchange = "shop"

// Broker is RabbitMQ at RABBITMQ_URL, with one connection for what is published and one for what is consumed.
type Broker struct{ connected int32 }

// Message is what waits to be published.
type Message struct {
	Key  string
	Body json.RawMessage
}

// Publish gives RabbitMQ all that `waiting` has, as it comes. It is passed on when `sent` returns nothing wrong: RabbitMQ has it then.
func (b *Broker) Publish(publish func(send func(Message) error) error) {
	b.keep(func(channel *amqp.Channel, closed chan *amqp.Error) error {
		if err := channel.Confirm(false); err != nil {
			return err
		}
		confirmed := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
		var lost error
		send := func(message Message) error {
			lost = errors.New("not confirmed")
			err := channel.PublishWithContext(context.Background(), exchange, message.Key, false, false, amqp.Publishing{
				ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: message.Body,
			})
			if err != nil {
				lost = err
				return lost
			}
			select {
			case confirmation, open := <-confirmed:
				if open && confirmation.Ack {
					lost = nil
				}
			case <-time.After(5 * time.Second):
			}
			return lost
		}
		for {
			pause := 100 * time.Millisecond
			if err := publish(send); lost != nil {
				return lost
			} else if err != nil {
				pause = time.Second // what waits is out of reach
			}
			select {
			case <-closed:
				return errors.New("closed")
			case <-time.After(pause):
			}
		}
	})
}

// Consume gives each message of the durable queue to its routing key's handler, and acknowledges it when that has done its work.
func (b *Broker) Consume(queue string, handlers map[string]func(body []byte) error) {
	b.keep(func(channel *amqp.Channel, closed chan *amqp.Error) error {
		if _, err := channel.QueueDeclare(queue, true, false, false, false, nil); err != nil {
			return err
		}
		for key := range handlers {
			if err := channel.QueueBind(queue, key, exchange, false, nil); err != nil {
				return err
			}
		}
		if err := channel.Qos(20, 0, false); err != nil {
			return err
		}
		messages, err := channel.Consume(queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		for message := range messages {
			if handler, known := handlers[message.RoutingKey]; known {
				if err := handler(message.Body); err != nil {
					log.Printf("%s comes again: %v", message.RoutingKey, err)
					time.Sleep(time.Second)
					if err := message.Nack(false, true); err != nil {
						return err
					}
					continue
				}
			}
			if err := message.Ack(false); err != nil {
				return err
			}
		}
		return errors.New("no more messages")
	})
}

// keep has a channel, and another when that has ended.
func (b *Broker) keep(use func(channel *amqp.Channel, closed chan *amqp.Error) error) {
	for {
		log.Printf("RabbitMQ: %v", b.once(use))
		time.Sleep(time.Second)
	}
}

func (b *Broker) once(use func(channel *amqp.Channel, closed chan *amqp.Error) error) error {
	connection, err := amqp.Dial(Variable("RABBITMQ_URL"))
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := channel.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
		return err
	}
	atomic.AddInt32(&b.connected, 1)
	defer atomic.AddInt32(&b.connected, -1)
	return use(channel, channel.NotifyClose(make(chan *amqp.Error, 1)))
}

// Ping is whether both connections are there.
func (b *Broker) Ping() error {
	if atomic.LoadInt32(&b.connected) < 2 {
		return errors.New("not connected")
	}
	return nil
}
