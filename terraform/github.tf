# The role of GitHub's workflow: it pushes images and starts training jobs, from one branch of one repository, with no key.

resource "aws_iam_openid_connect_provider" "github" {
  count = var.github_repository == null ? 0 : 1

  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_policy_document" "github_trust" {
  count = var.github_repository == null ? 0 : 1

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.github[0].arn]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }

    # Not a pull request, not a fork, not another branch: this subject is what GitHub says of a run on main.
    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:sub"
      values   = ["repo:${var.github_repository}:ref:refs/heads/main"]
    }
  }
}

resource "aws_iam_role" "github" {
  count = var.github_repository == null ? 0 : 1

  name                 = "mlops-github"
  description          = "GitHub's workflow on main: images and training jobs"
  assume_role_policy   = data.aws_iam_policy_document.github_trust[0].json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "github" {
  for_each = var.github_repository == null ? {} : {
    images   = data.aws_iam_policy_document.node_images.json
    training = data.aws_iam_policy_document.github_training.json
  }

  name   = each.key
  role   = aws_iam_role.github[0].id
  policy = each.value
}

data "aws_iam_policy_document" "github_training" {
  statement {
    sid = "Training"
    actions = [
      "sagemaker:AddTags", "sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob",
    ]
    resources = local.sagemaker_things["training-job"]
  }

  # The latest snapshot is found by its manifest.
  statement {
    sid       = "Snapshots"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.data.arn}/data/processed/features/*"]
  }

  statement {
    sid       = "Keys"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.data.arn]
  }

  statement {
    sid       = "TheKeyOfAllThat"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.main.arn]
  }

  statement {
    sid       = "FindTheRole"
    actions   = ["iam:GetRole"]
    resources = [aws_iam_role.sagemaker.arn]
  }

  statement {
    sid       = "HandTheRoleOn"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.sagemaker.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["sagemaker.amazonaws.com"]
    }
  }
}
