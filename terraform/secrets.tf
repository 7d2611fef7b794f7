# The key that everything is encrypted with, and secrets by name: their values are put by people and never stand here.

locals {
  secrets = {
    "mlops/openai"      = "The key of OpenAI, for a module that is still to come"
    "mlops/redis-url"   = "The address of Redis with its password"
    "mlops/journal-url" = "The address of the journal's database with its password"
    "mlops/ledger-url"  = "The address of the ledger's database with its password"
    "mlops/api-key"     = "An API key with the scope predict, as plain text, for the stream's function"
    "mlops/git-token"   = "A token that may read the repository, where that is private"
  }
}

resource "aws_secretsmanager_secret" "this" {
  # checkov:skip=CKV2_AWS_57: only the database or the service behind a secret can change it; the platform follows a new value within five minutes
  for_each = local.secrets

  name                    = each.key
  description             = each.value
  kms_key_id              = aws_kms_key.main.arn
  recovery_window_in_days = var.force_destroy ? 0 : 30
}

resource "aws_kms_key" "main" {
  description             = "mlops-platform: bucket, images, secrets, stream, topic, logs"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "main" {
  name          = "alias/mlops-platform"
  target_key_id = aws_kms_key.main.key_id
}

data "aws_iam_policy_document" "key" {
  # checkov:skip=CKV_AWS_356: in a key's own policy * is this one key; AWS takes nothing else there
  # checkov:skip=CKV_AWS_111: the same
  # checkov:skip=CKV_AWS_109: the same
  statement {
    sid = "TheAccountDecidesByItsOwnPolicies"
    actions = [
      "kms:CancelKeyDeletion", "kms:Create*", "kms:Decrypt", "kms:Delete*", "kms:Describe*", "kms:Disable*",
      "kms:Enable*", "kms:Encrypt", "kms:GenerateDataKey*", "kms:Get*", "kms:List*", "kms:Put*", "kms:ReEncrypt*",
      "kms:Revoke*", "kms:RotateKeyOnDemand", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource",
      "kms:Update*",
    ]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${local.aws}:iam::${local.account}:root"]
    }
  }

  statement {
    sid       = "LogGroups"
    actions   = ["kms:Decrypt", "kms:Describe*", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${var.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:${local.aws}:logs:${var.region}:${local.account}:log-group:*"]
    }
  }

  # An alarm that may not use the topic's key changes its state and tells nobody.
  statement {
    sid       = "AlarmsTellTheTopic"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}
