"""Users and groups, in the theme's look. Nobody raises himself: superusers are for superusers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from batching.admin.rows import Audited

if TYPE_CHECKING:
    from django.http import HttpRequest

admin.site.unregister(User)
admin.site.unregister(Group)

RAISING = ("is_superuser", "user_permissions")
"""Fields by which an administrator could give himself more than his group holds."""


@admin.register(User)
class PersonAdmin(UserAdmin, Audited[User]):  # type: ignore[type-arg]  # no parameter at run time
    """Who may log in, and in which groups."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_superuser", "roles", "last_login")
    list_filter = ("is_active", "groups")

    def get_queryset(self, request: HttpRequest) -> Any:
        """Fetch everyone's groups at once."""
        return super().get_queryset(request).prefetch_related("groups")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Lock what would raise someone, unless a superuser asks."""
        fields = tuple(super().get_readonly_fields(request, obj))
        return fields if request.user.is_superuser else (*fields, *RAISING)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Only a superuser changes a superuser, or his password."""
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Only a superuser deletes a superuser."""
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Offer no action on many: deleting is done one by one, where the page says what goes along."""
        return {}

    @admin.display(description="Groups")
    def roles(self, user: User) -> str:
        """Names of the user's groups."""
        return ", ".join(group.name for group in user.groups.all())


def _may_touch(request: HttpRequest, user: User | None) -> bool:
    return user is None or not user.is_superuser or request.user.is_superuser


@admin.register(Group)
class RoleAdmin(GroupAdmin, Audited[Group]):
    """viewer, operator and admin are made by migration; what they may do is a superuser's to change."""
