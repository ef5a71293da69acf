// Products: product.ProductService. What there is and how much of it, each product a document in Postgres.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"sort"
	"syscall"

	"github.com/lib/pq"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "shop/pb/product"
)

type service struct {
	pb.UnimplementedProductServiceServer
	health.UnimplementedHealthServer
	database *sql.DB
}

// Check is what Consul asks: the service serves while it has its tables.
func (s *service) Check(ctx context.Context, _ *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	state := health.HealthCheckResponse_SERVING
	if s.database.PingContext(ctx) != nil {
		state = health.HealthCheckResponse_NOT_SERVING
	}
	return &health.HealthCheckResponse{Status: state}, nil
}

func (s *service) product(ctx context.Context, id int32) (*pb.Product, error) {
	product := &pb.Product{Id: id}
	row := s.database.QueryRowContext(ctx, "select doc->>'name', doc->'price', doc->'stock' from products where id = $1", id)
	err := row.Scan(&product.Name, &product.Price, &product.Stock)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, status.Errorf(codes.NotFound, "Product %d not found", id)
	}
	return product, err
}

func (s *service) GetProduct(ctx context.Context, r *pb.GetProductRequest) (*pb.GetProductResponse, error) {
	product, err := s.product(ctx, r.Id)
	return &pb.GetProductResponse{Product: product}, err
}

func (s *service) ListProducts(ctx context.Context, r *pb.ListProductsRequest) (*pb.ListProductsResponse, error) {
	count := r.PageSize
	if count < 0 {
		return nil, status.Error(codes.InvalidArgument, "page_size is negative")
	}
	if count == 0 || count > 100 {
		count = 100
	}
	rows, err := s.database.QueryContext(ctx, "select id, doc->>'name', doc->'price', doc->'stock' from products where id > $1 order by id limit $2", r.After, count)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := &pb.ListProductsResponse{}
	for rows.Next() {
		product := &pb.Product{}
		if err := rows.Scan(&product.Id, &product.Name, &product.Price, &product.Stock); err != nil {
			return nil, err
		}
		list.Products = append(list.Products, product)
	}
	return list, rows.Err()
}

func (s *service) CheckInventory(ctx context.Context, r *pb.CheckInventoryRequest) (*pb.CheckInventoryResponse, error) {
	if r.Quantity < 1 {
		return nil, status.Error(codes.InvalidArgument, "quantity is less than 1")
	}
	product, err := s.product(ctx, r.ProductId)
	if err != nil {
		return nil, err
	}
	return &pb.CheckInventoryResponse{Available: product.Stock >= r.Quantity, Price: product.Price}, nil
}

// Amounts of products, as they are kept with the order that they were deducted for.
type amounts map[int32]int32

func (a amounts) products() []int32 {
	ids := make([]int32, 0, len(a))
	for id := range a {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] }) // in one order, so that no two wait for each other
	return ids
}

func (s *service) DeductInventory(ctx context.Context, r *pb.DeductInventoryRequest) (*pb.DeductInventoryResponse, error) {
	asked := amounts{}
	for _, item := range r.Items {
		if item.Quantity < 1 {
			return nil, status.Error(codes.InvalidArgument, "quantity is less than 1")
		}
		asked[item.ProductId] += item.Quantity
	}
	kept, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	return &pb.DeductInventoryResponse{}, s.together(ctx, func(tx *sql.Tx) error {
		made, err := tx.ExecContext(ctx, "insert into deductions (order_id, items) values ($1, $2) on conflict do nothing", r.OrderId, string(kept))
		if err != nil {
			return err
		}
		if count, err := made.RowsAffected(); err != nil || count == 0 {
			return wasDeducted(ctx, tx, r.OrderId, err)
		}
		for _, id := range asked.products() {
			if err := deduct(ctx, tx, id, asked[id]); err != nil {
				return err
			}
		}
		return nil
	})
}

// What asking once more for an order says: nothing, or that it is too late.
func wasDeducted(ctx context.Context, tx *sql.Tx, order int32, err error) error {
	restored := false
	if err == nil {
		err = tx.QueryRowContext(ctx, "select restored from deductions where order_id = $1", order).Scan(&restored)
	}
	if err == nil && restored {
		return status.Errorf(codes.FailedPrecondition, "Order %d is cancelled", order)
	}
	return err
}

func deduct(ctx context.Context, tx *sql.Tx, product, quantity int32) error {
	const change = "update products set doc = jsonb_set(doc, '{stock}', to_jsonb((doc->>'stock')::int - $2::int)) where id = $1 and (doc->>'stock')::int >= $2::int"
	made, err := tx.ExecContext(ctx, change, product, quantity)
	if err != nil {
		return err
	}
	if count, err := made.RowsAffected(); err != nil || count == 1 {
		return err
	}
	return status.Errorf(codes.FailedPrecondition, "Product %d out of stock", product)
}

func (s *service) RestoreInventory(ctx context.Context, r *pb.RestoreInventoryRequest) (*pb.RestoreInventoryResponse, error) {
	return &pb.RestoreInventoryResponse{}, s.together(ctx, func(tx *sql.Tx) error {
		const mark = "insert into deductions (order_id, items, restored) values ($1, '{}', true) " +
			"on conflict (order_id) do update set restored = true where not deductions.restored returning items"
		var kept []byte
		switch err := tx.QueryRowContext(ctx, mark, r.OrderId).Scan(&kept); {
		case errors.Is(err, sql.ErrNoRows):
			return nil // it was restored before
		case err != nil:
			return err
		}
		back := amounts{}
		if err := json.Unmarshal(kept, &back); err != nil {
			return err
		}
		for _, id := range back.products() {
			const change = "update products set doc = jsonb_set(doc, '{stock}', to_jsonb((doc->>'stock')::int + $2::int)) where id = $1"
			if _, err := tx.ExecContext(ctx, change, id, back[id]); err != nil {
				return err
			}
		}
		return nil
	})
}

// together does all of it, or nothing.
func (s *service) together(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.database.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// told makes a status of what went wrong: a database that is away is the caller's to know, what else is ours.
func told(ctx context.Context, request interface{}, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (interface{}, error) {
	answer, err := handle(ctx, request)
	if _, is := status.FromError(err); is {
		return answer, err
	}
	log.Print(info.FullMethod, ": ", err)
	var refused *pq.Error
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if errors.As(err, &refused) && refused.Code.Class() != "57" && refused.Code.Class() != "08" { // it stops or starts; no connection
		return nil, status.Error(codes.Internal, "Internal error")
	}
	return nil, status.Error(codes.Unavailable, "The database is away")
}

func variable(name, usual string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return usual
}

func main() {
	place := fmt.Sprintf("host=%s port=%s user=%s password='%s' dbname=%s sslmode=disable connect_timeout=2",
		variable("POSTGRES_HOST", "127.0.0.1"), variable("POSTGRES_PORT", "5432"), variable("POSTGRES_USER", "shop"),
		os.Getenv("POSTGRES_PASSWORD"), variable("POSTGRES_DB", "shop"))
	database, err := sql.Open("postgres", place)
	if err != nil {
		log.Fatal(err)
	}
	database.SetMaxOpenConns(8)
	if _, err := database.Exec(tables); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+variable("PORT", "50053"))
	if err != nil {
		log.Fatal(err)
	}
	server, products := grpc.NewServer(grpc.UnaryInterceptor(told)), &service{database: database}
	pb.RegisterProductServiceServer(server, products)
	health.RegisterHealthServer(server, products)
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ends
		server.GracefulStop()
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

// One instance after the other makes them, and the first one fills them.
const tables = `
select pg_advisory_xact_lock(50053);
create table if not exists products (id serial primary key, doc jsonb not null);
create table if not exists deductions (order_id int primary key, items jsonb not null, restored boolean not null default false);
insert into products (doc) select doc from (values
  (1, jsonb '{"name": "Keyboard", "price": 4900, "stock": 100}'),
  (2, jsonb '{"name": "Mouse", "price": 1900, "stock": 250}'),
  (3, jsonb '{"name": "Screen", "price": 18900, "stock": 40}')
) as first (place, doc) where not exists (select from products) order by place;
`
