package main

import (
	"context"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"shop/pb"
	"shop/web"
)

type userServer struct {
	pb.UnimplementedUserServiceServer
	users Users
}

func (s userServer) GetUser(ctx context.Context, asked *pb.GetUserRequest) (*pb.GetUserResponse, error) {
	user, err := s.users.get(ctx, int64(asked.Id))
	switch {
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		log.Printf("GetUser: %v", err)
		return nil, status.Error(codes.Unavailable, "database is not available")
	case user == nil:
		return nil, status.Error(codes.NotFound, "User not found")
	}
	return &pb.GetUserResponse{User: &pb.User{Id: uint64(user.ID), Name: user.Name, Email: user.Email}}, nil
}

// serveGRPC answers on this machine's port until SIGTERM, as web.Serve does.
func serveGRPC(port string, users Users) error {
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pb.RegisterUserServiceServer(server, userServer{users: users})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() {
		<-web.Ended()
		server.GracefulStop()
	}()
	return server.Serve(listener)
}
