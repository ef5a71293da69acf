package main

import (
	"context"
	"database/sql"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"shop/common"
)

// What was sold is added up once a minute, by one of all instances: the one with the lock `sales`.

const salesSchema = `
create table if not exists sales (id bigserial primary key, token bigint not null, at timestamptz not null default now(), orders bigint not null, revenue bigint not null);` + common.Fences

func (s service) addUp(held context.Context, token int64) {
	every, err := time.ParseDuration(os.Getenv("SALES_EVERY"))
	if err != nil {
		every = time.Minute
	}
	for next := time.Tick(every); held.Err() == nil; {
		// Not with `held`: what is sent is sent, and the table decides whether it comes too late.
		if err := s.addUpOnce(token); err != nil {
			log.Printf("sales, token %d: %v", token, err)
		}
		select {
		case <-held.Done():
		case <-next:
		}
	}
}

func (s service) addUpOnce(token int64) error {
	return common.Fenced(context.Background(), s.db, "sales", token, func(tx *sql.Tx) error {
		_, err := tx.Exec("insert into sales (token, orders, revenue) select $1, count(*), coalesce(sum(total), 0) from orders where status = 'completed'", token)
		if err == nil {
			_, err = tx.Exec("delete from sales where at < now() - interval '1 day'")
		}
		return err
	})
}

type sum struct {
	At      time.Time `json:"at"`
	Orders  int64     `json:"orders"`
	Revenue int64     `json:"revenue"`
}

// sales is for administrators: the newest first.
func (s service) sales(c *gin.Context) (interface{}, error) {
	_, role, err := common.Caller(c)
	if err != nil {
		return nil, err
	}
	if role != "admin" {
		return nil, common.Fail(http.StatusForbidden, "administrators only")
	}
	rows, err := s.db.QueryContext(c.Request.Context(), "select at at time zone 'utc', orders, revenue from sales order by id desc limit 100")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	sums := []sum{}
	for rows.Next() {
		var one sum
		if err := rows.Scan(&one.At, &one.Orders, &one.Revenue); err != nil {
			return nil, err
		}
		sums = append(sums, one)
	}
	return sums, rows.Err()
}
