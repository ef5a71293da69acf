<?php
// Users: user.UserService.

use App\Failure;
use App\Remote;
use App\Store;
use User\CreateUserRequest;
use User\CreateUserResponse;
use User\GetUserRequest;
use User\GetUserResponse;
use User\ListUsersRequest;
use User\ListUsersResponse;
use User\User;

class UserService
{
    public function GetUser(GetUserRequest $request): GetUserResponse
    {
        $row = Store::one('select id, name, email from users where id = ?', [$request->getId()]) ?? throw new Failure('User not found', Failure::NOT_FOUND);

        return new GetUserResponse(['user' => new User($row)]);
    }

    public function CreateUser(CreateUserRequest $request): CreateUserResponse
    {
        $new = ['name' => trim($request->getName()), 'email' => $request->getEmail()];
        $wrong = match (true) {
            $new['name'] === '' || mb_strlen($new['name']) > 100 => 'name has 1 to 100 characters',
            !filter_var($new['email'], FILTER_VALIDATE_EMAIL) || strlen($new['email']) > 200 => 'email is no address',
            strlen($request->getPassword()) < 8 || strlen($request->getPassword()) > 72 => 'password has 8 to 72 bytes',
            default => null,
        };
        if ($wrong) {
            throw new Failure($wrong, Failure::INVALID_ARGUMENT);
        }
        try {
            $hash = password_hash($request->getPassword(), PASSWORD_BCRYPT);
            $id = Store::insert('insert into users (name, email, password) values (?, ?, ?)', [...array_values($new), $hash]);
        } catch (Failure $e) {
            throw $e->getCode() === Failure::ALREADY_EXISTS ? new Failure('Email is taken', Failure::ALREADY_EXISTS) : $e;
        }
        Remote::publish('user.created', ['user_id' => $id, 'email' => $new['email']]);

        return new CreateUserResponse(['user' => new User(['id' => $id] + $new)]);
    }

    public function ListUsers(ListUsersRequest $request): ListUsersResponse
    {
        $count = min($request->getPageSize() ?: 100, 100);
        if ($count < 0) {
            throw new Failure('page_size is negative', Failure::INVALID_ARGUMENT);
        }
        $rows = Store::all('select id, name, email from users where id > ? order by id limit ' . $count, [$request->getAfter()]);

        return new ListUsersResponse(['users' => array_map(fn ($row) => new User($row), $rows)]);
    }
}

return ['user.UserService' => new UserService()];
