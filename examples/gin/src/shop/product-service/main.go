// Products (`/api/products`) over HTTP, and over gRPC at the same port; their stock (`/api/stock`), which only orders ask.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"shop/common"
	"shop/proto"
)

const schema = `
create table if not exists products (
	id bigserial primary key, name text not null, description text not null, price bigint not null, stock bigint not null check (stock >= 0));` + common.Reservations

type product struct {
	ID          int64  `json:"id"`
	Name        string `json:"name" binding:"required,max=100"`
	Description string `json:"description" binding:"max=1000"`
	Price       int64  `json:"price" binding:"required,min=1,max=100000000"`
	Stock       int64  `json:"stock" binding:"min=0,max=1000000000"`
}

type service struct {
	proto.UnimplementedProductServiceServer
	db    *sql.DB
	cache common.Cache
}

func main() {
	s := service{db: common.Tables(schema), cache: common.NewCache()}
	engine := common.Engine()
	common.Health(engine, map[string]func() error{"database": common.Answers(s.db), "redis": s.cache.Ping})
	engine.GET("/api/products", common.Answer(http.StatusOK, s.list))
	engine.GET("/api/products/:id", common.Answer(http.StatusOK, s.show))
	engine.POST("/api/products", common.Answer(http.StatusCreated, s.add)) // the gateway asks for the role
	engine.PUT("/api/products/:id", common.Answer(http.StatusOK, s.change))
	common.Participant(engine, s.db, "/api/stock", take, giveBack)
	common.Step(engine, s.db, "/api/stock/deduct", "/api/stock/restore", take, giveBack)
	rpc := grpc.NewServer()
	proto.RegisterProductServiceServer(rpc, s)
	common.Serve(engine, rpc)
}

func (p *product) columns() []interface{} {
	return []interface{}{&p.ID, &p.Name, &p.Description, &p.Price, &p.Stock}
}

func (s service) list(c *gin.Context) (interface{}, error) {
	rows, err := s.db.QueryContext(c.Request.Context(), "select id, name, description, price, stock from products where name ilike '%' || $1 || '%' order by id desc limit 100", c.Query("q"))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	products := []product{}
	for rows.Next() {
		var one product
		if err := rows.Scan(one.columns()...); err != nil {
			return nil, err
		}
		products = append(products, one)
	}
	return products, rows.Err()
}

func (s service) find(ctx context.Context, id int64) (found product, err error) {
	err = s.db.QueryRowContext(ctx, "select id, name, description, price, stock from products where id = $1", id).Scan(found.columns()...)
	if err == sql.ErrNoRows {
		err = common.Fail(http.StatusNotFound, "product not found")
	}
	return found, err
}

func (s service) show(c *gin.Context) (interface{}, error) {
	id, err := common.ID(c)
	if err != nil {
		return nil, err
	}
	return s.find(c.Request.Context(), id)
}

func (s service) add(c *gin.Context) (interface{}, error) {
	var asked product
	if err := common.Read(c, &asked); err != nil {
		return nil, err
	}
	err := s.db.QueryRowContext(c.Request.Context(), "insert into products (name, description, price, stock) values ($1, $2, $3, $4) returning id",
		asked.Name, asked.Description, asked.Price, asked.Stock).Scan(&asked.ID)
	return asked, err
}

func (s service) change(c *gin.Context) (interface{}, error) {
	id, err := common.ID(c)
	if err != nil {
		return nil, err
	}
	var asked product
	if err := common.Read(c, &asked); err != nil {
		return nil, err
	}
	result, err := s.db.ExecContext(c.Request.Context(), "update products set name = $2, description = $3, price = $4, stock = $5 where id = $1",
		id, asked.Name, asked.Description, asked.Price, asked.Stock)
	if err != nil {
		return nil, err
	}
	if count, err := result.RowsAffected(); err != nil || count == 0 {
		return nil, common.Fail(http.StatusNotFound, "product not found")
	}
	s.cache.Forget(fmt.Sprintf("product:%d", id))
	asked.ID = id
	return asked, nil
}

// GetProduct is what an order says of a product.
func (s service) GetProduct(ctx context.Context, asked *proto.GetProductRequest) (*proto.Product, error) {
	found := &proto.Product{}
	err := s.cache.Remembered(fmt.Sprintf("product:%d", asked.GetId()), found, func() error {
		row, err := s.find(ctx, asked.GetId())
		found.Id, found.Name, found.Price = row.ID, row.Name, row.Price
		return err
	})
	switch err.(type) {
	case nil:
		return found, nil
	case common.Failure:
		return nil, status.Error(codes.NotFound, "product not found")
	default:
		return nil, status.Error(codes.Unavailable, "service unavailable")
	}
}

type stock struct {
	Items []struct {
		Product  int64 `json:"product_id"`
		Quantity int64 `json:"quantity"`
	} `json:"items"`
}

// take and giveBack change the rows of products in the order of `items`, which callers sort: so they never wait for one another in a circle.
func take(tx *sql.Tx, payload []byte) error {
	return move(tx, payload, "update products set stock = stock - $1 where id = $2 and stock >= $1 and $1 > 0 returning name")
}

func giveBack(tx *sql.Tx, payload []byte) error {
	return move(tx, payload, "update products set stock = stock + $1 where id = $2 returning name")
}

func move(tx *sql.Tx, payload []byte, statement string) error {
	var asked stock
	if err := json.Unmarshal(payload, &asked); err != nil || len(asked.Items) == 0 {
		return common.Fail(http.StatusBadRequest, "invalid payload")
	}
	for _, item := range asked.Items {
		var name string
		err := tx.QueryRow(statement, item.Quantity, item.Product).Scan(&name)
		if err == sql.ErrNoRows {
			return common.Fail(http.StatusConflict, fmt.Sprintf("insufficient stock of product %d", item.Product))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
