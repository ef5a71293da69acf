// Orders (`/api/orders`): each is of a user, and of products that are there; its money and its goods are one transaction (tcc.go).
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"time"

	"github.com/gin-gonic/gin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"shop/common"
	"shop/proto"
)

const schema = `
create table if not exists orders (
	id bigserial primary key, user_id bigint not null, status text not null, total bigint not null,
	created_at timestamptz not null default now(), changed_at timestamptz not null default now(), settled boolean not null default false, saga boolean not null default false);
create index if not exists unsettled on orders (changed_at) where not settled;
create table if not exists items (
	order_id bigint not null references orders, product_id bigint not null, name text not null, price bigint not null, quantity bigint not null);
create index if not exists items_of on items (order_id);
create table if not exists outbox (id bigserial primary key, key text not null, body jsonb not null, sent boolean not null default false);
create index if not exists unsent on outbox (id) where not sent;
create table if not exists history (event_id bigint primary key, order_id bigint not null, key text not null);` + salesSchema

type item struct {
	Product  int64  `json:"product_id" binding:"required,min=1"`
	Name     string `json:"name"`
	Price    int64  `json:"price"`
	Quantity int64  `json:"quantity" binding:"required,min=1,max=10000"`
}

type order struct {
	ID      int64     `json:"id"`
	User    int64     `json:"user_id"`
	Status  string    `json:"status"`
	Total   int64     `json:"total"`
	Created time.Time `json:"created_at"`
}

type service struct {
	db       *sql.DB
	broker   *common.Broker
	products proto.ProductServiceClient
}

func main() {
	s := service{common.Tables(schema), &common.Broker{}, proto.NewProductServiceClient(common.Connect("product-grpc"))}
	cache := common.NewCache()
	go s.recover()
	go common.Alone("sales", s.addUp)
	go s.broker.Publish(s.publish)
	go s.broker.Consume("order-events", map[string]func([]byte) error{"order.created": s.heard("order.created"), "order.cancelled": s.heard("order.cancelled")})
	engine := common.Engine()
	common.Health(engine, map[string]func() error{"database": common.Answers(s.db), "redis": cache.Ping, "rabbitmq": s.broker.Ping})
	engine.POST("/api/orders", common.Answer(http.StatusCreated, s.add))
	engine.GET("/api/orders", common.Answer(http.StatusOK, s.list))
	engine.GET("/api/orders/sales", common.Answer(http.StatusOK, s.sales))
	engine.GET("/api/orders/:id", common.Answer(http.StatusOK, s.show))
	common.Serve(engine, nil)
}

func (s service) add(c *gin.Context) (interface{}, error) {
	caller, _, err := common.Caller(c)
	if err != nil {
		return nil, err
	}
	var asked struct {
		Items []item `json:"items" binding:"required,min=1,max=20,dive"`
	}
	if err := common.Read(c, &asked); err != nil {
		return nil, err
	}
	ctx := c.Request.Context()
	if err := common.Call(ctx, http.MethodGet, "user-service", fmt.Sprintf("/api/users/%d", caller), nil, &struct{}{}); err != nil {
		return nil, err
	}
	// All transactions take products in the same order.
	sort.Slice(asked.Items, func(a, b int) bool { return asked.Items[a].Product < asked.Items[b].Product })
	made := order{User: caller, Status: "created"}
	for i := range asked.Items {
		found, err := s.product(ctx, asked.Items[i].Product)
		if err != nil {
			return nil, err
		}
		asked.Items[i].Name, asked.Items[i].Price = found.GetName(), found.GetPrice()
		made.Total += found.GetPrice() * asked.Items[i].Quantity
	}
	saga := c.Query("by") == "saga"
	if err := s.write(ctx, &made, asked.Items, saga); err != nil {
		return nil, err
	}
	if saga {
		err = s.bySaga(common.Detached(ctx), &made, asked.Items, "25s")
	} else {
		err = s.execute(ctx, &made, asked.Items)
	}
	if err != nil {
		return nil, err
	}
	return shown{order: made, Items: asked.Items}, nil
}

type shown struct {
	order
	Items []item `json:"items"`
}

func (s service) write(ctx context.Context, made *order, items []item, saga bool) error {
	return common.Together(ctx, s.db, func(tx *sql.Tx) error {
		const insert = "insert into orders (user_id, status, total, saga) values ($1, $2, $3, $4) returning id, created_at at time zone 'utc'"
		err := tx.QueryRow(insert, made.User, made.Status, made.Total, saga).Scan(&made.ID, &made.Created)
		for _, one := range items {
			if err == nil {
				_, err = tx.Exec("insert into items values ($1, $2, $3, $4, $5)", made.ID, one.Product, one.Name, one.Price, one.Quantity)
			}
		}
		return err
	})
}

func (s service) product(ctx context.Context, id int64) (*proto.Product, error) {
	found, err := s.products.GetProduct(ctx, &proto.GetProductRequest{Id: id})
	switch status.Code(err) {
	case codes.OK:
		return found, nil
	case codes.NotFound:
		return nil, common.Fail(http.StatusNotFound, "product not found")
	default:
		return nil, common.Fail(http.StatusServiceUnavailable, "service unavailable")
	}
}

func (s service) list(c *gin.Context) (interface{}, error) {
	caller, _, err := common.Caller(c)
	if err != nil {
		return nil, err
	}
	rows, err := s.db.QueryContext(c.Request.Context(), "select id, user_id, status, total, created_at at time zone 'utc' from orders where user_id = $1 order by id desc limit 100", caller)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	orders := []order{}
	for rows.Next() {
		var one order
		if err := rows.Scan(&one.ID, &one.User, &one.Status, &one.Total, &one.Created); err != nil {
			return nil, err
		}
		orders = append(orders, one)
	}
	return orders, rows.Err()
}

// show is an order of whoever asks, with the customer and the products as they are called now.
func (s service) show(c *gin.Context) (interface{}, error) {
	caller, _, err := common.Caller(c)
	if err != nil {
		return nil, err
	}
	id, err := common.ID(c)
	if err != nil {
		return nil, common.Fail(http.StatusNotFound, "order not found")
	}
	ctx := c.Request.Context()
	var answer struct {
		shown
		Customer string   `json:"customer"`
		History  []string `json:"history"`
	}
	var items, history []byte
	err = s.db.QueryRowContext(ctx, `select id, user_id, status, total, created_at at time zone 'utc',
		(select jsonb_agg(jsonb_build_object('product_id', product_id, 'name', name, 'price', price, 'quantity', quantity) order by product_id) from items where order_id = orders.id),
		(select coalesce(jsonb_agg(key order by event_id), '[]') from history where order_id = orders.id)
		from orders where id = $1 and user_id = $2`, id, caller).
		Scan(&answer.ID, &answer.User, &answer.Status, &answer.Total, &answer.Created, &items, &history)
	if err == sql.ErrNoRows {
		return nil, common.Fail(http.StatusNotFound, "order not found")
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(items, &answer.Items); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(history, &answer.History); err != nil {
		return nil, err
	}
	var customer struct {
		Name string `json:"name"`
	}
	if err := common.Call(ctx, http.MethodGet, "user-service", fmt.Sprintf("/api/users/%d", caller), nil, &customer); err != nil {
		return nil, err
	}
	answer.Customer = customer.Name
	for i := range answer.Items {
		found, err := s.product(ctx, answer.Items[i].Product)
		if err != nil {
			return nil, err
		}
		answer.Items[i].Name = found.GetName()
	}
	return answer, nil
}

// event is what others are told of an order.
type event struct {
	ID    int64 `json:"id"`
	Order int64 `json:"order_id"`
}

// told writes an event with what it is about: RabbitMQ gets it once that is there.
func told(tx *sql.Tx, key string, id int64) error {
	_, err := tx.Exec("insert into outbox (key, body) values ($1, jsonb_build_object('order_id', $2::bigint))", key, id)
	return err
}

// publish sends what waits. What was sent, and then lost the connection, is sent again.
func (s service) publish(send func(common.Message) error) error {
	return common.Together(context.Background(), s.db, func(tx *sql.Tx) error {
		rows, err := tx.Query("select id, key, (body || jsonb_build_object('id', id))::text from outbox where not sent order by id limit 20 for update skip locked")
		if err != nil {
			return err
		}
		waiting, ids := []common.Message{}, []int64{}
		for rows.Next() {
			var id int64
			var one common.Message
			if err := rows.Scan(&id, &one.Key, (*[]byte)(&one.Body)); err != nil {
				return err
			}
			waiting, ids = append(waiting, one), append(ids, id)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for i, one := range waiting {
			if err := send(one); err != nil {
				return err
			}
			if _, err := tx.Exec("update outbox set sent = true where id = $1", ids[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// heard writes what was told into the order's history, once however often it comes.
func (s service) heard(key string) func(body []byte) error {
	return func(body []byte) error {
		var told event
		if err := json.Unmarshal(body, &told); err != nil {
			return nil // it would not be better a second time
		}
		_, err := s.db.Exec("insert into history values ($1, $2, $3) on conflict do nothing", told.ID, told.Order, key)
		return err
	}
}
