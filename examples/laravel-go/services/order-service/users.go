package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"shop/pb"
	"shop/web"
)

// User is what the user service says of one.
type User struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Users is the user service, at the addresses that lictor gives: no discovery, retries or breaker here.
type Users struct {
	url  string
	http *http.Client
	grpc pb.UserServiceClient
}

func newUsers() (*Users, error) {
	connection, err := grpc.Dial(net.JoinHostPort(os.Getenv("USER_GRPC_HOST"), os.Getenv("USER_GRPC_PORT")), grpc.WithInsecure())
	if err != nil {
		return nil, err
	}
	return &Users{os.Getenv("USER_SERVICE_URL"), &http.Client{Timeout: 35 * time.Second}, pb.NewUserServiceClient(connection)}, nil
}

// Get asks by HTTP for a user.
func (u *Users) Get(ctx context.Context, id int64) (*User, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/users/%d", u.url, id), nil)
	if err != nil {
		return nil, err
	}
	pairs := web.Forwarded(ctx)
	for i := 0; i < len(pairs); i += 2 {
		request.Header.Set(pairs[i], pairs[i+1])
	}
	response, err := u.http.Do(request)
	if err != nil {
		return nil, web.Error{Status: http.StatusBadGateway, Text: "service call failed"}
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, web.Error{Status: response.StatusCode, Text: fmt.Sprintf("service call failed: %d", response.StatusCode)}
	}
	var user User
	if err := json.NewDecoder(response.Body).Decode(&user); err != nil {
		return nil, web.Error{Status: http.StatusBadGateway, Text: "service call failed"}
	}
	return &user, nil
}

// Know asks by gRPC whether there is such a user.
func (u *Users) Know(ctx context.Context, id int64) error {
	ctx = metadata.AppendToOutgoingContext(ctx, web.Forwarded(ctx)...)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := u.grpc.GetUser(ctx, &pb.GetUserRequest{Id: uint64(id)})
	switch code := status.Code(err); code {
	case codes.OK:
		return nil
	case codes.NotFound:
		return web.Error{Status: http.StatusUnprocessableEntity, Text: status.Convert(err).Message()}
	default:
		return web.Error{Status: http.StatusServiceUnavailable, Text: fmt.Sprintf("service call failed: %s", code)}
	}
}
